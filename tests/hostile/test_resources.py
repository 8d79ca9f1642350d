"""What a process holds: nothing grows, no handle or thread is left, a fork goes on, and nothing opens a socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from mmap import mmap
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from mosaicaug import MixUp, RecursiveMosaic
from tests.hostile.growth import list_calls, list_reads, measure_growth

ROOT = Path(__file__).parents[2]
# Runs README's way from images to a page, with a hook that Python calls before a connection or a program.
SCRIPT = """
import json, sys

seen = []
watched = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request", "os.system")

def watch(event, arguments):
    if event in watched or event == "subprocess.Popen" and arguments[1][0] not in ("git", "/sbin/ldconfig"):
        seen.append(f"{event} {arguments!r}")

sys.addaudithook(watch)
import torch
import mosaicaug, mosaicaug.torchvision
from pmsi.cli.commands import main

images, labels = mosaicaug.CutMix(num_classes=2)(torch.rand(4, 3, 8, 8), torch.arange(4) % 2)
root, run, cache = sys.argv[1:]
words = (
    f"train --data folder --root {root} --run {run} --cache {cache} --workers 1 --threads 1 --device cpu --resize 36"
    " --crop 32 --epochs 1 --batch-size 4 --width-mult 0.35",
    f"data check {root} --workers 1",
)
codes = [main(line.split()) for line in words]
print(json.dumps([codes, seen]))
"""


@pytest.mark.parametrize(("chosen", "count"), [(slice(1), 10_000), (slice(None), 500)])
def test_ten_thousand_calls_leave_nothing(chosen: slice, count: int) -> None:
    growth = measure_growth(list_calls()[chosen], count)
    assert growth.memory < 4, growth
    assert growth.objects < 100, growth
    assert growth[2:] == (0, 0), growth


def test_reading_files_leaves_nothing(tmp_path: Path) -> None:
    growth = measure_growth(list_reads(tmp_path), 210)
    assert growth.memory < 4, growth
    assert growth.objects < 100, growth
    assert growth[2:] == (0, 0), growth


def test_a_leak_is_seen() -> None:
    kept: list[tuple[mmap, int]] = []

    def leak() -> None:
        pages = mmap(-1, 4_000_000)  # of its own, where torch could take pages that an earlier test has freed
        pages.write(b"x" * 4_000_000)
        kept.append((pages, os.open("/proc/self/status", os.O_RDONLY)))

    growth = measure_growth([leak], 30)
    for _, handle in kept:
        os.close(handle)
    assert growth.memory > 100
    assert growth.objects >= 30
    assert growth.files == 30


def _augment(path: str, threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    images = torch.arange(2 * 3 * 64 * 64.0).view(2, 3, 64, 64)
    torch.save(MixUp(num_classes=2)(RecursiveMosaic(r=3)(images), torch.tensor([0, 1]))[0], path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore")
def test_a_fork_of_a_process_that_used_its_threads_goes_on(tmp_path: Path) -> None:
    """With one thread, as DataLoader's workers have: torch's own threads do not outlive a fork, so more would hang."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.rand(300, 300) @ torch.rand(300, 300)
        _augment(str(tmp_path / "parent.pt"), 2)
        child = get_context("fork").Process(target=_augment, args=(str(tmp_path / "child.pt"), 1))
        child.start()
        child.join(60)
        assert child.exitcode == 0
    finally:
        torch.set_num_threads(before)
    parent, child_images = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("parent", "child"))
    assert torch.equal(parent, child_images)


def test_nothing_opens_a_socket_or_starts_a_program(photos: Path, tmp_path: Path) -> None:
    """Importing, augmenting, training and checking; but git, for the commit, and the linker's list of libraries."""
    command = [sys.executable, "-c", SCRIPT, str(photos), str(tmp_path / "run"), str(tmp_path / "cache")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    codes, seen = json.loads(done.stdout.splitlines()[-1])
    assert seen == []
    assert codes == [0, 0], done.stdout
