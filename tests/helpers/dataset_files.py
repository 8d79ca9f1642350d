"""Small data sets in each layout on disk: three classes of two training images and one test image."""

from __future__ import annotations

import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

from PIL import Image

CLASSES = ("001.Red_Knot", "002.Blue_Jay", "003.Green_Heron")
CARS = ("AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012")
VARIANTS = ("737-200", "F/A-18", "Cessna 172")
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


def write_mat(path: Path, *, order: str = "<", compress: bool = True, **variables: Any) -> None:
    """A MATLAB file of level 5 as MATLAB itself writes it: numbers as short as they go, short elements in their tag."""
    content = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x100) + {"<": b"IM", ">": b"MI"}[order]
    for name, value in variables.items():
        variable = _pack_matrix(value, order, name)
        if compress:
            variable = zlib.compress(variable)
            variable = struct.pack(f"{order}II", 15, len(variable)) + variable
        content += variable
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _pack(order: str, kind: int, content: bytes) -> bytes:
    if 0 < len(content) <= 4:
        return struct.pack(f"{order}I", len(content) << 16 | kind) + content.ljust(4, b"\0")
    padded = content.ljust(-(-len(content) // 8) * 8, b"\0")
    return struct.pack(f"{order}II", kind, len(content)) + padded


def _pack_matrix(value: Any, order: str, name: str = "") -> bytes:
    """None is an empty cell; a list is a struct array if it holds dicts, else a cell array."""
    structs = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    kind = 2 if structs else 1 if isinstance(value, list) else 4 if isinstance(value, str) else 6
    columns = len(value) if isinstance(value, list | str) else 1

    def pack_head() -> bytes:
        flags = _pack(order, 6, struct.pack(f"{order}II", kind, 0))
        return flags + _pack(order, 5, struct.pack(f"{order}ii", 1, columns)) + _pack(order, 1, name.encode())

    if value is None:
        return struct.pack(f"{order}II", 14, 0)
    if structs:
        fields = b"".join(field.encode().ljust(32, b"\0") for field in value[0])
        body = _pack(order, 5, struct.pack(f"{order}i", 32)) + _pack(order, 1, fields)
        body += b"".join(_pack_matrix(record[field], order) for record in value for field in value[0])
    elif isinstance(value, list):
        body = b"".join(_pack_matrix(item, order) for item in value)
    elif isinstance(value, str):
        body = _pack(order, 4, value.encode({"<": "utf-16-le", ">": "utf-16-be"}[order]))
    elif isinstance(value, float):
        body = _pack(order, 9, struct.pack(f"{order}d", value))
    else:
        body = _pack(order, 2, bytes([value])) if value < 256 else _pack(order, 4, struct.pack(f"{order}H", value))
    return _pack(order, 14, pack_head() + body)


def write_folder(root: Path) -> Path:
    """ImageFolder of two classes with three training and two test images."""
    for part, name, n in itertools.product(("train", "test"), ("iris", "rose"), range(3)):
        if (part, n) != ("test", 2):
            save_image(root / part / name / f"{n}.jpg")
    return root
