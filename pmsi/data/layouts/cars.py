"""Stanford Cars: annotations in MATLAB files, as one table or as the devkit."""

from __future__ import annotations

import itertools
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pmsi.data.layouts.base import Layout, Listing, check_files, check_values, step_into
from pmsi.runtime.files import describe_error, read_bytes

# Places of the devkit's tables: as published, as copies have them, and beside the images.
_DEVKITS = ("", "devkit", "car_devkit", "car_devkit/devkit")
_TABLES = ("cars_train_annos.mat", "cars_test_annos_withlabels.mat", "cars_meta.mat")
_MAX_BYTES = 20_000_000  # of an annotation file, packed or not; the published ones have up to 0.6 MB
_MATRIX, _COMPRESSED, _TEXTS = 14, 15, (1, 2, 4, 16, 17, 18)  # kinds of parts of a MATLAB file
_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # of a number, by the kind of its part
_CELL, _STRUCT, _TEXT, _NUMBERS = 1, 2, 4, range(6, 16)  # classes of matrices
_COMPLEX = 0x800  # among the flags of a matrix
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
        _check_parts(read_bytes(path), name)
        with warnings.catch_warnings(action="ignore"):  # of variables that are named twice, and of odd numbers
            found = loadmat(path, simplify_cells=True, variable_names=[name], appendmat=False)
    except Exception as error:  # a damaged file makes scipy raise anything from KeyError to zlib.error and MemoryError
        reason = describe_error(error)
        raise ValueError(f"{path} is damaged, or no MATLAB file of level 5 ({reason}); save it as -v7") from error
    value = found.get(name, [])
    # A single element comes without its array.
    return [_simplify(item) for item in (value if isinstance(value, list | np.ndarray) else [value])]


def _check_parts(content: bytes, name: str) -> None:
    """Check the parts of a MATLAB file before scipy reads the matrix ``name``, which crashes where they do not fit.

    Raises:
        ValueError: parts do not fit, matrices hold each other too deeply, or they unpack to over `_MAX_BYTES`.
    """
    order, size = "<" if content[126:128] == b"IM" else ">", 0
    for kind, part in _split_parts(memoryview(content)[128:], order, pad=False):
        if kind == _COMPRESSED:
            unpacked = zlib.decompressobj().decompress(part, _MAX_BYTES + 1)
            size += len(unpacked)
            if size > _MAX_BYTES:
                raise ValueError(f"it unpacks to over {_MAX_BYTES // 10**6} MB")
            parts = list(_split_parts(memoryview(unpacked), order))
        else:
            parts = [(kind, part)]
        for inner, matrix in parts:
            if inner != _MATRIX or len(parts) > 1:
                raise ValueError(f"it holds a part of the unknown kind {inner}")
            _check_matrix(matrix, order, name.encode())


def _split_parts(content: memoryview, order: str, *, pad: bool = True) -> Iterator[tuple[int, memoryview]]:
    """Split bytes into parts: kind and values of each. Within matrices they begin at multiples of 8 bytes."""
    place = 0
    while place < len(content):
        kind, length = struct.unpack_from(f"{order}II", content, place)
        if kind >> 16:  # a short one, whose values lie in the last 4 bytes of its head
            kind, length, place = kind & 0xFFFF, kind >> 16, place - 4
            end = place + 12
        else:
            end = place + 8 + length + (-length % 8 if pad else 0)
        if place + 8 + length > min(end, len(content)):
            raise ValueError("a part is longer than what holds it")
        yield kind, content[place + 8 : place + 8 + length]
        place = end


def _check_matrix(content: memoryview, order: str, wanted: bytes | None, depth: int = 0) -> None:
    """Check a matrix and those that it holds; where a name is ``wanted``, the values of others are not looked at."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"it has over {_MAX_DEPTH} matrices in each other")
    if not content:
        return  # an empty one
    heads = list(itertools.islice(_split_parts(content, order), 3))
    if [kind for kind, _ in heads] != [6, 5, 1] or len(heads[0][1]) != 8 or len(heads[1][1]) not in range(8, 33, 4):
        raise ValueError("a matrix has no class, size and name")
    if wanted not in (None, bytes(heads[2][1])):
        return
    flags = struct.unpack_from(f"{order}I", heads[0][1])[0]
    sizes = struct.unpack(f"{order}{len(heads[1][1]) // 4}i", heads[1][1])
    family, count, (_, _, _, *rest) = flags & 0xFF, math.prod(sizes), _split_parts(content, order)
    if family == _STRUCT:
        width, names = struct.unpack(f"{order}i", rest[0][1])[0], len(rest[1][1])
        count, rest = count * (names // width), rest[2:]
    kinds = [kind for kind, _ in rest]
    if family in (_CELL, _STRUCT):
        fits = kinds == [_MATRIX] * count
        for _, matrix in rest if fits else ():
            _check_matrix(matrix, order, None, depth + 1)
    elif family == _TEXT:
        fits = len(rest) == 1 and kinds[0] in _TEXTS
    else:
        lengths = [len(values) / _BYTES.get(kind, -1) for kind, values in rest]
        fits = family in _NUMBERS and lengths == [count] * (2 if flags & _COMPLEX else 1)
    if min(sizes) < 0 or not fits:
        raise ValueError(f"a matrix of {' x '.join(map(str, sizes))} does not hold what it says")


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
