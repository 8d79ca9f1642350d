"""Hostile tables of data sets: text files, and MATLAB files."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from scipy.io import savemat

from pmsi.data.cub_annotations import read_annotations
from pmsi.data.layouts import list_images
from tests.helpers.dataset_files import edit, list_cars, save_image, write_cars, write_cub, write_lines
from tests.hostile.case import Case

_FIRST = "001.Red_Knot/0.png"  # the first image of `write_cub`


def list_with(change: Callable[[Path], object], room: Path) -> None:
    """List CUB-200-2011 after a change of its folder."""
    root = write_cub(room / "root")
    save_image(room / "elsewhere.png")
    change(root)
    list_images("cub", root)


def rename_first(name: str) -> Callable[[Path], object]:
    return lambda root: edit(root / "images.txt", _FIRST, name)


def replace_by_pipe(root: Path) -> None:
    (root / "images.txt").unlink()
    os.mkfifo(root / "images.txt")


def replace_by_device(root: Path) -> None:
    (root / "images.txt").unlink()
    (root / "images.txt").symlink_to("/dev/zero")


def make_huge(root: Path) -> None:
    with (root / "images.txt").open("r+b") as file:
        file.truncate(2**40)  # a hole, of which the disk holds nothing


def read_boxes(text: str, room: Path) -> None:
    root = write_cub(room)
    write_lines(root / "bounding_boxes.txt", *(f"{i} {text}" for i in range(1, 10)))
    read_annotations(root, [root / "images" / _FIRST], resize=36, crop=32)


def list_mat(change: Callable[[bytes], bytes], room: Path) -> None:
    """List Stanford Cars after a change of the bytes of its table."""
    root = write_cars(room)
    path = root / "cars_annos.mat"
    path.write_bytes(change(path.read_bytes()))
    list_images("cars", root)


def list_mat_of(values: object, room: Path, *, packed: bool = True) -> None:
    root = write_cars(room, list_cars(room))
    savemat(root / "cars_annos.mat", {"annotations": values, "class_names": values}, do_compression=packed)
    list_images("cars", root)


def claim(_: bytes) -> bytes:
    """A cell array that says it has 2^40 elements."""
    name = struct.pack("<II", 1, 11) + b"class_names".ljust(16, b"\0")
    dims = struct.pack("<IIii", 5, 8, 2**20, 2**20)
    body = struct.pack("<IIII", 6, 8, 1, 0) + dims + name
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    return head + struct.pack("<II", 14, len(body)) + body


def nest(depth: int, *, lies: bool) -> bytes:
    """A file of cells in each other, whose lengths are right or too short."""
    content = struct.pack("<IIIIIIiiIIIHxx", 6, 8, 4, 0, 5, 8, 1, 1, 1, 0, 2 << 16 | 4, 120)  # the letter x
    cell, name = struct.pack("<IIIIIIii", 6, 8, 1, 0, 5, 8, 1, 1), struct.pack("<II", 1, 0)
    levels, length = [], len(content)
    for level in range(depth):
        own = name if level < depth - 1 else struct.pack("<II", 1, 11) + b"class_names".ljust(16, b"\0")
        levels.append(cell + own + struct.pack("<II", 14, 8 if lies else length))
        length += len(levels[-1])
    data = b"".join([*reversed(levels), content])
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + struct.pack("<II", 14, len(data)) + data


_DAMAGED = "is damaged, or no MATLAB file of level 5"
TABLES = (
    Case(
        "a table that names an image by a path through `..`",
        partial(list_with, rename_first("../../elsewhere.png")),
        "paths must be below it",
    ),
    Case("a table that names `/etc/passwd`", partial(list_with, rename_first("/etc/passwd")), "paths must be below it"),
    Case(
        "a table that names an image with a zero byte",
        partial(list_with, rename_first("a\0b.png")),
        "which is not in",
    ),
    Case("a pipe in the place of a table", partial(list_with, replace_by_pipe), "is no file but a folder, a pipe"),
    Case(
        "a link to a device in the place of a table", partial(list_with, replace_by_device), "is no file but a folder"
    ),
    Case("a table of a terabyte", partial(list_with, make_huge), "has over 1073 MB, which is no table"),
    Case(
        "a table of bytes that are no text",
        partial(list_with, lambda root: (root / "images.txt").write_bytes(bytes(range(128, 256)) * 9)),
        "must be an id and a value",
    ),
    Case("boxes that are words", partial(read_boxes, "a b c d"), "could not convert string"),
    Case("boxes of three numbers", partial(read_boxes, "1 2 3"), "must hold 5 numbers a line"),
    Case(
        "a MATLAB file that is cut", partial(list_mat, lambda content: content[: len(content) // 2]), "cars_annos.mat"
    ),
    Case("a MATLAB file that says it has 2^40 elements", partial(list_mat, claim), _DAMAGED),
    Case(
        "a MATLAB file of 0.03 MB that unpacks to 30 MB",
        partial(list_mat_of, np.zeros(3 * 10**7, np.uint8)),
        "it unpacks to over 20 MB",
    ),
    Case(
        "a MATLAB file of 20,000 cells in each other",
        partial(list_mat, lambda _: nest(20_000, lies=False)),
        "it has over 20 matrices in each other",
    ),
    Case(
        "a MATLAB file of 20,000 cells, each of which says that it is shorter than it is",
        partial(list_mat, lambda _: nest(20_000, lies=True)),
        "does not hold what it says",
    ),
    Case("a MATLAB file of 2 cells in each other", partial(list_mat, lambda _: nest(2, lies=False)), "must hold"),
    Case("a MATLAB file of numbers in the place of records", partial(list_mat_of, np.ones(9)), "must hold"),
)
