"""Hostile files in the place of a cache of decoded images."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pmsi.data.cache import _MAGIC, _TAIL
from pmsi.data.dataset import Dataset, load_dataset
from tests.helpers.dataset_files import write_folder
from tests.hostile.case import Case


def load(room: Path, said: list[str]) -> Dataset:
    return load_dataset("folder", room / "root", resize=8, cache=room / "cache", workers=1, say=said.append)


def replace_cache(change: Callable[[Path], object], room: Path) -> None:
    """A cache that was changed is read anew, with a line that says so, and gives the pixels that it should."""
    write_folder(room / "root")
    first = load(room, []).train.images.clone()
    (path,) = (room / "cache").glob("*-training-*")
    change(path)
    said: list[str] = []
    again = load(room, said)
    assert torch.equal(first, again.train.images)
    assert len(first) == len(again.train.labels) == 6
    assert "cannot be used" in said[0], said
    assert "\n" not in said[0]
    assert torch.equal(load(room, said).train.images, first)
    assert len(said) == 2, "it was mended"


def tell(changes: dict[str, Any], path: Path) -> None:
    """Change values of the description, under a checksum that fits."""
    content = path.read_bytes()
    _, length, _ = _TAIL.unpack(content[-_TAIL.size :])
    pixels, text = content[: -_TAIL.size - length], content[-_TAIL.size - length : -_TAIL.size]
    about = json.dumps({**json.loads(text), **changes}).encode()
    path.write_bytes(pixels + about + _TAIL.pack(zlib.crc32(about), len(about), _MAGIC))


def describe(text: bytes, path: Path) -> None:
    """Another text in the place of the description, under a checksum that fits."""
    path.write_bytes(text + _TAIL.pack(zlib.crc32(text), len(text), _MAGIC))


def replace_by(make: Callable[[Path], object], path: Path) -> None:
    path.unlink()
    make(path)


def load_beside_folder(room: Path) -> None:
    write_folder(room / "root")
    load(room, [])
    (path,) = (room / "cache").glob("*-training-*")
    path.unlink()
    (path / "x").mkdir(parents=True)
    load(room, [])


_MADE_ANEW = "said, and made anew from the images"
_CHANGES: dict[str, Callable[[Path], object]] = {
    "that is empty": lambda path: path.write_bytes(b""),
    "that is cut": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "of another version": lambda path: path.write_bytes(path.read_bytes().replace(b"pmsi-c1", b"pmsi-c9")),
    "whose description says that it has 2^32 bytes": lambda path: path.write_bytes(
        path.read_bytes()[:-16] + struct.pack("<II8s", 0, 2**32 - 1, _MAGIC)
    ),
    "that says it has 2^60 images": partial(tell, {"shape": [2**60, 3, 8, 8]}),
    "that says its images are as many, but of another shape": partial(tell, {"shape": [6, 8, 8, 3]}),
    "with a shape below 0": partial(tell, {"shape": [-6, -3, 8, 8]}),
    "with a shape of words": partial(tell, {"shape": "6388"}),
    "that says an image was skipped, so that all labels would move": partial(tell, {"skipped": [0]}),
    "that skips what is no image": partial(tell, {"skipped": ["x"]}),
    "whose key is no key": partial(tell, {"key": 5}),
    "described by 100,000 lists in each other": partial(describe, b"[" * 100_000),
    "described by a number": partial(describe, b"7"),
}

CACHES = (
    *(Case(f"a cache {what}", partial(replace_cache, change), then=_MADE_ANEW) for what, change in _CHANGES.items()),
    Case("a pipe in the place of a cache", partial(replace_cache, partial(replace_by, os.mkfifo)), then=_MADE_ANEW),
    Case(
        "a link to a device in the place of a cache",
        partial(replace_cache, partial(replace_by, lambda path: path.symlink_to("/dev/zero"))),
        then=_MADE_ANEW,
    ),
    Case("a folder in the place of a cache", load_beside_folder, "cache: could not write"),
)
