"""Copies of a command: words, threads, failures, and that none outlives the block."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from pmsi.runtime import jobs
from pmsi.runtime.jobs import start_copies

NOTE = """
import os, sys, time
path, *words = sys.argv[1:]
if words[0] == "sleep":
    time.sleep(600)
open(f"{path}/{os.getpid()}", "w").write(" ".join([os.environ["OMP_NUM_THREADS"], *words]))
sys.exit("first line\\nno such folder" if words[0] == "fail" else 0)
"""


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """First word of commands that take a note of their words."""
    monkeypatch.setattr(jobs, "COMMAND", (sys.executable, "-c", NOTE))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    return [str(tmp_path)]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of threads that were set."""
    found: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    return found


def read_notes(folder: Path) -> list[str]:
    return sorted(path.read_text() for path in folder.iterdir())


def test_copies_get_the_words_and_a_share_of_the_threads(words: list[str], threads: list[int], tmp_path: Path) -> None:
    with start_copies([*words, "compare", "--jobs", "3"], 3):
        assert threads == [2]
    assert read_notes(tmp_path) == ["2 compare --jobs 3 --jobs 1"] * 2
    assert threads == [2, 6]


def test_one_job_starts_nothing(words: list[str], threads: list[int], tmp_path: Path) -> None:
    with start_copies([*words, "compare"], 1):
        pass
    assert (read_notes(tmp_path), threads) == ([], [])


@pytest.mark.usefixtures("threads")
def test_a_copy_that_failed_is_told_in_its_own_words(words: list[str]) -> None:
    said = "--jobs: a copy of this command ended with 1: no such folder"
    with pytest.raises(ValueError, match=said), start_copies([*words, "fail"], 2):
        pass


@pytest.mark.usefixtures("threads")
def test_copies_end_with_a_block_that_failed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    real = jobs._start

    def start(*arguments: object) -> object:
        started.append(real(*arguments))  # type: ignore[arg-type]
        return started[-1]

    monkeypatch.setattr(jobs, "_start", start)
    with pytest.raises(KeyboardInterrupt), start_copies([*words, "sleep"], 2):
        raise KeyboardInterrupt
    assert started[0][0].poll() is not None


@pytest.mark.usefixtures("threads")
def test_jobs_that_cannot_be(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="--jobs: must be 1 or more, got 0"):
        start_copies(words, 0).__enter__()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="--jobs 2: torchrun has several processes for each run already"):
        start_copies(words, 2).__enter__()
