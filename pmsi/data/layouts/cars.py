"""Stanford Cars: annotations in MATLAB files, as one table or as the devkit."""

from __future__ import annotations

import math
import re
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pmsi.data.layouts.base import Layout, Listing, check_files, check_values, step_into
from pmsi.runtime.files import describe_error, read_bytes

# Places of the devkit's tables: as published, as copies have them, and beside the images.
_DEVKITS = ("", "devkit", "car_devkit", "car_devkit/devkit")
_TABLES = ("cars_train_annos.mat", "cars_test_annos_withlabels.mat", "cars_meta.mat")
_MAX_BYTES = 20_000_000  # of an annotation file, packed or not; the published ones have up to 0.6 MB
_MATRIX, _COMPRESSED = 14, 15  # kinds of parts of a MATLAB file
_CELL, _STRUCT, _OBJECT = 1, 2, 3  # classes of matrices that hold matrices
_MAX_DEPTH = 20  # of matrices in matrices; the published files have 3


def list_cars(root: Path) -> Listing:
    """List one table with a flag for the test images, or the devkit with two folders of images."""
    root = root / "stanford_cars" if (root / "stanford_cars").is_dir() else root  # as torchvision unpacks it
    root = step_into(root)
    tables = {name: _find_table(root, name) for name in _TABLES}
    folders = {
        name: step_into(root / name) for name in ("car_ims", "cars_train", "cars_test") if (root / name).is_dir()
    }
    single = [name for name in ("cars_annos.mat", "car_ims") if not (root / name).exists()]
    devkit = [name for name, path in tables.items() if not path.exists()]
    devkit += [name for name in ("cars_train", "cars_test") if name not in folders]
    if single and devkit:
        raise FileNotFoundError(
            f"cars: {root} has no {', '.join(single)}; and of the other layout no {', '.join(devkit)}. --root must"
            f" hold cars_annos.mat and car_ims/, or cars_train/, cars_test/ and, there or in devkit/ or car_devkit/,"
            f" {', '.join(_TABLES)} (the devkit's own cars_test_annos.mat has no classes)"
        )
    if not single:
        path = root / "cars_annos.mat"
        classes = _read_names(path)
        cars = _read_cars(path, "relative_im_path", folders["car_ims"].parent, classes)
        check_values("cars: cars_annos.mat", {file: flag for file, _, flag in cars}, (0, 1), "0 or 1 as `test`")
        train, test = (tuple((file, label) for file, label, flag in cars if flag == part) for part in (0, 1))
        return Listing("cars", classes, train, test, "Stanford Cars, split by the `test` of its cars_annos.mat")
    classes = _read_names(tables["cars_meta.mat"])
    train, test = (
        tuple((file, label) for file, label, _ in _read_cars(tables[name], "fname", folders[part], classes))
        for name, part in zip(_TABLES, ("cars_train", "cars_test"), strict=False)
    )
    return Listing("cars", classes, train, test, "Stanford Cars devkit, split into its cars_train/ and cars_test/")


def _find_table(root: Path, name: str) -> Path:
    """Path of a table of the devkit; copies that a browser numbered count too, as "NAME (1).mat"."""
    stem = name.removesuffix(".mat")
    found = (path for place in _DEVKITS for path in sorted((root / place).glob(f"{stem}*.mat")))
    copies = (path for path in found if re.fullmatch(rf"{stem}( ?\(\d+\))?", path.stem))
    return next(copies, root / name)


def read_variable(path: Path, name: str) -> list[Any]:
    """Read one cell or struct array of a MATLAB file; no code in it is run.

    Returns:
        Its elements: str, int, float, array, or a dict of a struct's fields. Empty where the file has no such variable.

    Raises:
        ValueError: the file is damaged, or no MATLAB file of level 5; or scipy is not installed.
    """
    try:
        from scipy.io import loadmat  # of an extra
    except ModuleNotFoundError as error:
        raise ValueError(f"cars: reading {path.name} needs scipy: pip install 'mosaicaug[cars]'") from error
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"cars: {path} has over {_MAX_BYTES // 10**6} MB, which is no list of annotations")
    try:
        _check_parts(read_bytes(path))
        with warnings.catch_warnings(action="ignore"):  # of variables that are named twice, and of odd numbers
            found = loadmat(path, simplify_cells=True, variable_names=[name], appendmat=False)
    except Exception as error:  # a damaged file makes scipy raise anything from KeyError to zlib.error and MemoryError
        reason = describe_error(error)
        raise ValueError(f"{path} is damaged, or no MATLAB file of level 5 ({reason}); save it as -v7") from error
    value = found.get(name, [])
    # A single element comes without its array.
    return [_simplify(item) for item in (value if isinstance(value, list | np.ndarray) else [value])]


def _check_parts(content: bytes) -> None:
    """ValueError for parts that unpack to over `_MAX_BYTES` together, or hold too many matrices in each other."""
    order, place, size = "<" if content[126:128] == b"IM" else ">", 128, 0
    while place + 8 <= len(content):
        kind, length = struct.unpack_from(f"{order}II", content, place)
        part = content[place : place + 8 + length]
        if kind == _COMPRESSED:
            part = zlib.decompressobj().decompress(part[8:], _MAX_BYTES + 1)
            size += len(part)
        if size > _MAX_BYTES:
            raise ValueError(f"it unpacks to over {_MAX_BYTES // 10**6} MB")
        _check_depth(part, order)
        place += 8 + length


def _check_depth(part: bytes, order: str) -> None:
    """ValueError for matrices in more than `_MAX_DEPTH` others: scipy follows them by recursion, and crashes.

    Lengths of matrices may lie, and scipy does not look at them; so matrices are counted, as it does.
    """

    def open_element(place: int) -> tuple[int, int, int]:
        """Place and length of an element's values, and the place of the next element."""
        kind, length = struct.unpack_from(f"{order}II", part, place)
        if kind >> 16:  # a short one, whose values lie within its head
            return place + 4, kind >> 16, place + 8
        return place + 8, length, place + 8 + length + -length % 8

    left: list[int] = []  # matrices that are still to come in each that is open
    place = 0
    while place + 8 <= len(part):
        kind, length = struct.unpack_from(f"{order}II", part, place)
        if kind != _MATRIX:
            place = open_element(place)[2]
            continue
        while left and not left[-1]:
            left.pop()
        if left:
            left[-1] -= 1
        place += 8
        if not length:
            continue
        flags, _, sizes = open_element(place)
        family = struct.unpack_from(f"{order}I", part, flags)[0] & 0xFF
        start, length, name = open_element(sizes)
        count = math.prod(struct.unpack_from(f"{order}{length // 4}i", part, start))
        place = open_element(name)[2]
        if family in (_STRUCT, _OBJECT):
            widths = open_element(place)[2] if family == _OBJECT else place  # an object has the name of its class first
            start, _, names = open_element(widths)
            _, length, place = open_element(names)
            count *= length // max(struct.unpack_from(f"{order}i", part, start)[0], 1)
        if family in (_CELL, _STRUCT, _OBJECT):
            left.append(count)
        if len(left) > _MAX_DEPTH:
            raise ValueError(f"it has over {_MAX_DEPTH} cells in each other")


def _simplify(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _simplify(item) for name, item in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    return value


def _read_names(path: Path) -> tuple[str, ...]:
    names = read_variable(path, "class_names")
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"cars: {path.name} must hold `class_names`, a cell array of text")
    return tuple(names)


def _read_cars(path: Path, file_field: str, folder: Path, classes: Sequence[str]) -> list[tuple[Path, int, object]]:
    """File, label and `test` of each image; classes count from 1 there, and bounding boxes are not used."""
    cars = read_variable(path, "annotations")
    if not cars or not all(isinstance(car, dict) and {file_field, "class"} <= {*car} for car in cars):
        raise ValueError(f"cars: {path.name} must hold `annotations`, a struct array with {file_field} and class")
    files = [str(car[file_field]) for car in cars]
    check_files(f"cars: {path.name}", folder, files)
    class_ids = dict(zip(files, (car["class"] for car in cars), strict=True))
    check_values(f"cars: {path.name}", class_ids, range(1, len(classes) + 1), f"a class, 1 to {len(classes)}")
    return [(folder / file, int(car["class"]) - 1, car.get("test")) for file, car in zip(files, cars, strict=True)]


CARS = Layout(
    list_cars,
    marks=("cars_annos.mat", "car_ims", "cars_train", "devkit", "car_devkit", "stanford_cars"),
    elsewhere=(
        "cars: Stanford Cars can no longer be downloaded from its authors (ai.stanford.edu/~jkrause/cars is gone)."
        " Copies are on Kaggle and elsewhere; github.com/pytorch/vision/issues/7545 names some. Unpack one so that"
        " {root} holds cars_train/, cars_test/, devkit/ (with cars_train_annos.mat and cars_meta.mat) and"
        " cars_test_annos_withlabels.mat, or else cars_annos.mat and car_ims/; then run `pmsi data check {root}`"
    ),
)
