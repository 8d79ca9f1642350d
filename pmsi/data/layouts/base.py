"""Listing and layout of a data set, and the checks of tables that all layouts share."""

from __future__ import annotations

import codecs
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pmsi.runtime.files import read_bytes

Entries = tuple[tuple[Path, int], ...]
"""File and label of each image."""


@dataclass(frozen=True)
class Listing:
    """Images of a data set, listed before any is read.

    Args:
        name: of the layout.
        classes: K names; labels are their indices.
        train, test: (file, label) of each image.
        rule: how the images were split, in words.
        left_out: files and folders that lie among the images and are not used.
    """

    name: str
    classes: tuple[str, ...]
    train: Entries
    test: Entries
    rule: str
    left_out: tuple[Path, ...] = ()


_HIDDEN = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin", "system volume information"),
    *("@eadir", "#recycle", "#snapshot", "lost+found", "__pycache__"),
}


class Archive(NamedTuple):
    """A tar file: its address, the MD5 of its bytes, and the folder that it unpacks to."""

    url: str
    md5: str
    folder: str


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies on disk.

    Args:
        list_images: lists the images of a folder, or raises ValueError or FileNotFoundError with one clear line.
        marks: paths below a folder; one of them shows that the folder has this layout. None: it is never recognised.
        archive: the published file, if there is one to download.
        elsewhere: advice instead of a download, where the published file is gone; "{root}" stands for the folder.
    """

    list_images: Callable[[Path], Listing]
    marks: tuple[str, ...] = ()
    archive: Archive | None = None
    elsewhere: str | None = None


def check_listing(listing: Listing, when: str = "") -> None:
    """Check that there are images of two classes or more, test images, and training images of every class.

    Args:
        when: words of the message that say after which step they are lacking.

    Raises:
        ValueError: something is lacking.
    """
    if not listing.train and not listing.test:
        raise ValueError(
            f"{listing.name}: there are no images{when}; --root must hold some, in a folder for each class"
        )
    trained = {label for _, label in listing.train}
    empty = [name for label, name in enumerate(listing.classes) if label not in trained]
    if empty:
        many = f"{len(empty)} of {len(listing.classes)} classes"
        raise ValueError(f"{listing.name}: class {empty[0]} has no training image{when} ({many}); give it one")
    if not listing.test:
        raise ValueError(f"{listing.name}: there are no test images{when}; the split must hold some out")
    if len(listing.classes) == 1:
        raise ValueError(
            f"{listing.name}: there is one class, {listing.classes[0]}; --root must hold two or more to tell apart"
        )
    repeated = [name for name, count in Counter(listing.classes).items() if count > 1]
    if repeated:
        raise ValueError(f"{listing.name}: two classes are called {repeated[0]}; names must be unique")


def count_left_out(listing: Listing) -> str:
    """Count what is not used by suffix, as words; empty if nothing was left out."""
    kinds = Counter("folders" if path.is_dir() else path.suffix or "without suffix" for path in listing.left_out)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def is_hidden(name: str) -> bool:
    """Test for names of files and folders that systems and tools make, and users do not see."""
    return name.startswith(".") or name.casefold() in _HIDDEN


def step_into(folder: Path) -> Path:
    """Path of the folder of the same name that is all that ``folder`` holds, as archives unpack; else ``folder``."""
    while True:
        inside = [path for path in folder.iterdir() if not is_hidden(path.name)]
        if len(inside) != 1 or inside[0].name != folder.resolve().name or not inside[0].is_dir():
            return folder
        folder = inside[0]


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file, of any system's line ends and with or without a byte order mark.

    It is UTF-16 where its byte order mark says so, else UTF-8; bytes that are none become U+FFFD.
    """
    content = read_bytes(path)
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return re.split("\r\n|\r|\n", content.decode(encoding, errors="replace"))  # splitlines() cuts names at U+0085 too


def read_table(name: str, path: Path) -> dict[str, str]:
    """Read lines of "id value", in order.

    Raises:
        ValueError: a line without a value, or an id that occurs twice.
    """
    table: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split(maxsplit=1)
        if len(fields) == 1:
            raise ValueError(f"{name}: {path.name} line {number} must be an id and a value, got {line!r}")
        if fields:
            if fields[0] in table:
                raise ValueError(f"{name}: {path.name} line {number} repeats id {fields[0]}; ids must be unique")
            table[fields[0]] = fields[1].rstrip()
    return table


def check_values(table: str, values: Mapping[Any, object], allowed: Container[object], meaning: str) -> None:
    """Check that every image of a table has an allowed value; ValueError names the first that has another."""
    for image, value in values.items():
        if not isinstance(value, str | int | float) or value not in allowed:
            raise ValueError(f"{table} gives image {image} the value {value!r}; it must be {meaning}")


def check_files(table: str, folder: Path, files: Collection[str]) -> None:
    """Check that each image is listed once and lies in ``folder``.

    Raises:
        ValueError: an image is listed twice, or lies elsewhere.
        FileNotFoundError: an image is not there.
    """
    parts = {file: Path(os.path.normpath(file)).parts for file in files}
    elsewhere = [file for file in files if Path(file).is_absolute() or parts[file][:1] == ("..",)]
    if elsewhere:
        raise ValueError(f"{table} names {elsewhere[0]}, which is not below {folder}; paths must be below it")
    repeated = [file for file, count in Counter(map(os.path.normpath, files)).items() if count > 1]
    if repeated:
        raise ValueError(f"{table} lists {repeated[0]} more than once; train and test must not share an image")
    absent = [file for file in files if not (folder / file).is_file()]
    if absent:
        raise FileNotFoundError(
            f"{table} names {absent[0]}, which is not in {folder} ({len(absent)} of {len(files)} are missing)"
        )
