"""Listing and layout of a data set, and the checks of tables that all layouts share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
    """

    name: str
    classes: tuple[str, ...]
    train: Entries
    test: Entries
    rule: str


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
    """Check that there are images, test images, and training images of every class.

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


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file; bytes that are not UTF-8 become U+FFFD."""
    return path.read_text("utf-8", errors="replace").splitlines()


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
        ValueError: an image is listed twice.
        FileNotFoundError: an image is not there.
    """
    repeated = [file for file, count in Counter(files).items() if count > 1]
    if repeated:
        raise ValueError(f"{table} lists {repeated[0]} more than once; train and test must not share an image")
    absent = [file for file in files if not (folder / file).is_file()]
    if absent:
        raise FileNotFoundError(
            f"{table} names {absent[0]}, which is not in {folder} ({len(absent)} of {len(files)} are missing)"
        )
