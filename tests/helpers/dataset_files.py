"""Small data sets in each layout on disk: three classes of two training images and one test image."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from pmsi.data.layouts import list_images
from pmsi.data.layouts.base import Listing

CLASSES = ("001.Red_Knot", "002.Blue_Jay", "003.Green_Heron")
CARS = ("AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012")
VARIANTS = ("737-200", "F/A-18", "Cessna 172")
LABELS = ([0, 0, 1, 1, 2, 2], [0, 1, 2])  # of training and test images in the layouts of the paper's data sets
COLOURS = ((220, 30, 40), (30, 40, 210), (40, 200, 30))


def save_image(path: Path, colour: tuple[int, ...] = (10, 200, 90), size: tuple[int, int] = (20, 14)) -> None:
    """One plain picture; ``size`` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def write_lines(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def edit(path: Path, old: str, new: str) -> None:
    """Replace what stands there once or first."""
    before, after = path.read_text().split(old, 1)
    path.write_text(before + new + after)


def write_cub(root: Path) -> Path:
    """Every second of three is a test image; ids count from 1."""
    files = [f"{name}/{n}.png" for name in CLASSES for n in range(3)]
    for i, file in enumerate(files):
        save_image(root / "images" / file, COLOURS[i // 3])
    write_lines(root / "classes.txt", *(f"{n} {name}" for n, name in enumerate(CLASSES, 1)))
    write_lines(root / "images.txt", *(f"{i} {file}" for i, file in enumerate(files, 1)))
    write_lines(root / "image_class_labels.txt", *(f"{i + 1} {i // 3 + 1}" for i in range(9)))
    write_lines(root / "train_test_split.txt", *(f"{i + 1} {int(i % 3 != 1)}" for i in range(9)))
    return root


def write_aircraft(root: Path) -> Path:
    """Labels of three levels; the third image of each variant is a test image."""
    levels = {"variant": VARIANTS, "family": ("Boeing 737", "F/A-18", "Boeing 737"), "manufacturer": ("B", "D", "C")}
    tables = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
    for i in range(9):
        save_image(root / "images" / f"{i:07}.jpg", COLOURS[i // 3])
    for level, names in levels.items():
        write_lines(root / tables[level], *dict.fromkeys(names))
        rows = [f"{i:07} {names[i // 3]}" for i in range(9)]
        write_lines(root / f"images_{level}_trainval.txt", *(row for i, row in enumerate(rows) if i % 3 < 2))
        write_lines(root / f"images_{level}_test.txt", *rows[2::3])
    return root


def list_cars(root: Path) -> list[dict[str, Any]]:
    """The records of ``cars_annos.mat``, whose images are saved."""
    records = []
    for i in range(9):
        save_image(root / "car_ims" / f"{i + 1:06}.jpg", COLOURS[i // 3])
        box = {"bbox_x1": 1, "bbox_y1": 2, "bbox_x2": 19, "bbox_y2": 300}
        records.append({"relative_im_path": f"car_ims/{i + 1:06}.jpg", **box, "class": i // 3 + 1, "test": i % 3 // 2})
    return records


def write_cars(root: Path, records: list[dict[str, Any]] | None = None) -> Path:
    """The layout of one table; by default that of `list_cars`."""
    records = list_cars(root) if records is None else records
    write_mat(root / "cars_annos.mat", annotations=records, class_names=[*CARS])
    return root


def write_cars_devkit(root: Path) -> Path:
    """The layout of the devkit; files are numbered anew in each part."""
    for part, table, count in (("train", "cars_train_annos", 6), ("test", "cars_test_annos_withlabels", 3)):
        records = []
        for i in range(count):
            save_image(root / f"cars_{part}" / f"{i + 1:05}.jpg", COLOURS[i * 3 // count])
            records.append({"bbox_x1": 5, "class": i * 3 // count + 1, "fname": f"{i + 1:05}.jpg"})
        write_mat(root / "devkit" / f"{table}.mat", annotations=records)
    write_mat(root / "devkit" / "cars_meta.mat", class_names=[*CARS])
    return root


def write_mat(path: Path, *, compress: bool = True, **variables: Any) -> None:
    """A MATLAB file of level 5; a list of dicts becomes a struct array, another list a cell array, None an empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {name: _to_mat(value) for name, value in variables.items()}, do_compression=compress)


def _to_mat(value: Any) -> Any:
    if value is None:
        return np.zeros((0, 0))
    if not isinstance(value, list):
        return np.uint16(value) if isinstance(value, int) else value
    if isinstance(value[0], dict):
        array = np.empty((1, len(value)), [(field, object) for field in value[0]])
        for row, record in enumerate(value):
            for field, item in record.items():
                array[field][0, row] = _to_mat(item)
        return array
    cells = np.empty((1, len(value)), object)
    cells[0] = [_to_mat(item) for item in value]
    return cells


def write_folder(root: Path) -> Path:
    """ImageFolder of two classes with three training and two test images."""
    for part, name, n in itertools.product(("train", "test"), ("iris", "rose"), range(3)):
        if (part, n) != ("test", 2):
            save_image(root / part / name / f"{n}.jpg")
    return root


def list_labels(listing: Listing) -> tuple[list[int], list[int]]:
    """Labels of the training and of the test images."""
    return [label for _, label in listing.train], [label for _, label in listing.test]


def list_files(listing: Listing, root: Path) -> list[str]:
    """Paths below ``root``, training images first."""
    return [path.relative_to(root).as_posix() for path, _ in listing.train + listing.test]


def refuse(name: str, root: Path, text: str, kind: type[Exception] = ValueError) -> None:
    """Check that a data set is refused with a message that ``text`` matches."""
    with pytest.raises(kind, match=text):
        list_images(name, root)
