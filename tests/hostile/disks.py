"""Disks that are full or may not be written to, and several processes on one folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from pmsi.data.check import write_sheet
from pmsi.data.dataset import load_dataset
from pmsi.data.layouts import list_images
from pmsi.experiments.folder import LOCK
from pmsi.experiments.run import train_run
from pmsi.experiments.source import Source
from pmsi.report.page import write_page
from pmsi.runtime.checkpoints import load_newest, save_checkpoint
from pmsi.runtime.files import write_json
from tests.helpers.dataset_files import write_folder
from tests.helpers.full_disk import full_disk
from tests.helpers.small_run import RECIPE, Watch, make_dataset, make_session, read_folder
from tests.helpers.small_study import make_study
from tests.hostile.case import Case

_NOBODY = 65534
Write = Callable[[Path], object]


def keep_cache(place: Path) -> None:
    load_dataset("folder", place.parent / "photos", resize=64, cache=place, workers=1, say=lambda _: None)


def keep_checkpoint(place: Path) -> None:
    save_checkpoint(place / "last.ckpt", {"identity": {}, "weights": torch.rand(100_000)})


def keep_sheet(place: Path) -> None:
    write_sheet(list_images("folder", place.parent / "photos"), place / "sheet.png")


_WRITERS: dict[str, Write] = {
    "a cache": keep_cache,
    "a checkpoint": keep_checkpoint,
    "results": lambda place: write_json(place / "results.json", [*range(10_000)]),
    "a page": lambda place: write_page(make_study(none=[(80, 82)], rmg=[(79, 81)]), place / "report.html"),
    "a contact sheet": keep_sheet,
}


def write_all(names: Sequence[str], free: int, room: Path) -> None:
    """Write over what stands there, on a disk of so little room; each time it is refused, and the old files stay."""
    write_folder(room / "photos")
    for name in names:
        place = room / name
        _WRITERS[name](place)
        for path in place.iterdir():
            path.write_bytes(b"old")
        before = read_folder(place)
        with full_disk(free), pytest.raises(OSError, match=r"could not write [^\n]+ is untouched[^\n]*$") as stop:
            _WRITERS[name](place)
        assert read_folder(place) == before, name
    raise stop.value


@contextmanager
def be_nobody() -> Iterator[Path]:
    """Be a user who owns nothing, in a folder that belongs to another."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    try:
        if os.getuid() == 0:
            os.seteuid(_NOBODY)
        yield folder
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def write_read_only(name: str, _: Path) -> None:
    with be_nobody() as folder:
        try:
            _WRITERS[name](folder / "new")
        finally:
            assert list(folder.iterdir()) == []


def replace_in_turn(path: Path, number: int) -> None:
    for _ in range(30):
        save_checkpoint(path, {"identity": {"number": number}, "weights": torch.full((5000,), float(number))})


def race(room: Path) -> None:
    """Two processes replace one checkpoint again and again, and a third reads it: it is always whole."""
    path, context = room / "last.ckpt", get_context("fork")
    save_checkpoint(path, {"identity": {"number": 0}, "weights": torch.zeros(5000)})
    both = [context.Process(target=replace_in_turn, args=(path, number)) for number in (1, 2)]
    for process in both:
        process.start()
    while any(process.is_alive() for process in both):
        found = load_newest(path)  # in the moment between two renames it is previous.ckpt
        assert found is not None
        assert found["weights"].eq(found["identity"]["number"]).all()
    assert [process.exitcode for process in both] == [0, 0]
    for process in both:
        process.close()


def train_where_another_trains(room: Path) -> None:
    with FileLock(room / LOCK):
        train_run(
            Source(),
            make_dataset(),
            replace(RECIPE, epochs=1),
            seed=0,
            folder=room,
            session=make_session(),
            callback=Watch(),
        )


DISKS = (
    Case(
        f"a full disk, under {', '.join(_WRITERS)}",
        partial(write_all, [*_WRITERS], 1),
        "could not write",
        "what stood there before is untouched",
    ),
    Case(
        "a disk that fills up in the middle of a cache or a checkpoint",
        partial(write_all, ["a cache", "a checkpoint"], 700),
        "could not write",
        "what stood there before is untouched",
    ),
    *(
        Case(f"a folder that may not be written to, for {name}", partial(write_read_only, name), "Permission denied")
        for name in ("a checkpoint", "results")
    ),
    Case("two processes that replace one checkpoint", race, then="it is always whole, and the last one wins"),
    Case("two processes that train in one folder", train_where_another_trains, "another process is training in"),
)
