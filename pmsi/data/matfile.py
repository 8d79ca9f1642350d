"""Reads MATLAB's files of level 5 (``-v6`` and ``-v7``), of which the annotations of Stanford Cars are made."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_HEADER = 128  # bytes: text, version, and "IM" or "MI", which tells the order of bytes
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMERIC = range(6, 16)
_COMPLEX = 0x800


def read_mat(path: Path) -> dict[str, Any]:
    """The variables of a file by name.

    A number is an int or float, several numbers are an array of MATLAB's shape, text is one str, a cell array is a list
    and a struct array a list of dicts, both in MATLAB's (column) order.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged or of another version, or holds something else (complex or sparse numbers, text of
            several lines, objects).
    """
    content = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(content[126:_HEADER])
    try:
        if order is None:
            raise ValueError("its header is not that of level 5")
        return dict(_list_variables(content[_HEADER:], order))
    except (ValueError, IndexError, struct.error, zlib.error) as error:
        raise ValueError(
            f"{path} is damaged, or no MATLAB file of level 5 ({error}); files of -v4 and -v7.3 must be saved as -v7"
        ) from error


class _Element(NamedTuple):
    kind: int
    content: bytes


@dataclass
class _Reader:
    """Takes one data element after another from ``content``."""

    content: bytes
    order: str
    place: int = 0

    def take(self) -> _Element:
        kind, size = struct.unpack_from(f"{self.order}II", self.content, self.place)
        start = self.place + 8
        if kind >> 16:  # up to 4 bytes lie in the tag itself
            kind, size, start = kind & 0xFFFF, kind >> 16, self.place + 4
        content = self.content[start : start + size]
        if len(content) != size:
            raise ValueError(f"it ends within an element of {size} bytes")
        self.place = start + size if kind == _COMPRESSED else math.ceil((start + size) / 8) * 8
        return _Element(kind, content)

    def take_numbers(self) -> NDArray[Any]:
        kind, content = self.take()
        if kind not in _NUMBERS:
            raise ValueError(f"it has an element of type {kind} where numbers should be")
        return np.frombuffer(content, f"{self.order}{_NUMBERS[kind]}")

    def take_text(self) -> str:
        kind, content = self.take()
        if kind not in _TEXTS:
            raise ValueError(f"it has an element of type {kind} where text should be")
        wide = {"<": "-le", ">": "-be"}[self.order] if _TEXTS[kind] in ("utf-16", "utf-32") else ""
        return content.decode(f"{_TEXTS[kind]}{wide}")


def _list_variables(content: bytes, order: str) -> Iterator[tuple[str, Any]]:
    reader = _Reader(content, order)
    while reader.place < len(content):
        kind, inside = reader.take()
        if kind == _COMPRESSED:
            kind, inside = _Reader(zlib.decompress(inside), order).take()
        if kind != _MATRIX:
            raise ValueError(f"it has an element of type {kind} where a variable should be")
        yield _read_matrix(inside, order)


def _read_matrix(content: bytes, order: str) -> tuple[str, Any]:
    """Name and value of one array."""
    if not content:  # an empty cell or field
        return "", np.empty((0, 0))
    reader = _Reader(content, order)
    flags = int(reader.take_numbers()[0])
    kind = flags & 0xFF
    shape = tuple(reader.take_numbers().tolist())
    name = reader.take_text()
    if flags & _COMPLEX or (kind == _CHAR and shape[0] > 1):
        raise ValueError("it has complex numbers, or text of several lines")
    if kind == _CHAR:
        return name, reader.take_text()
    if kind == _CELL:
        return name, [_read_matrix(reader.take().content, order)[1] for _ in range(math.prod(shape))]
    if kind == _STRUCT:
        length = int(reader.take_numbers()[0])
        names = reader.take().content
        fields = [
            names[at : at + length].split(b"\0", 1)[0].decode("latin-1") for at in range(0, len(names), length or 1)
        ]
        return name, [
            {field: _read_matrix(reader.take().content, order)[1] for field in fields} for _ in range(math.prod(shape))
        ]
    if kind not in _NUMERIC:
        raise ValueError(f"it has an array of class {kind}, which is neither numbers, text, cells nor a struct")
    numbers = reader.take_numbers().reshape(shape, order="F")
    return name, numbers.item() if numbers.size == 1 else numbers
