"""Host memory of tensors as a GPU would see it: what lies outside of them may not be touched, and bytes are counted."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from torch import Tensor

Array = np.ndarray[Any, Any]


class Fault(Exception):  # noqa: N818 - the word for it on a GPU
    """An access that would be an error, or undefined, on a GPU."""


class Memory:
    """Spans of bytes that a launch may touch: from the first to the last element of each tensor.

    Args:
        tensors: all that may be read; a tensor that lies within another is part of it.
        out: dense tensor that is written, each byte once.
    """

    def __init__(self, tensors: Iterable[Tensor], out: Tensor) -> None:
        spans = sorted({_span(tensor) for tensor in (*tensors, out) if tensor.numel()})
        self.spans: list[tuple[int, int]] = []
        for start, end in spans:
            if self.spans and start < self.spans[-1][1]:
                self.spans[-1] = self.spans[-1][0], max(end, self.spans[-1][1])
            else:
                self.spans.append((start, end))
        # From 16 bytes before: places of units are counted from a multiple of every width.
        self.starts = np.array([start for start, _ in self.spans], np.int64)
        self.ends = np.array([end for _, end in self.spans], np.int64)
        self.bytes = [_view(start - start % 16, end) for start, end in self.spans]
        self.out = _span(out)
        assert self.out[1] - self.out[0] == out.numel() * out.element_size(), "out is not dense"
        self.written = np.zeros(self.out[1] - self.out[0], np.bool_)
        self.steps: list[int] = []  # instructions that each program executed

    def load(self, address: Array, count: int, unit: int, label: object) -> list[Array]:
        """Read ``count`` units of ``unit`` bytes at each address."""
        found = [np.empty(address.shape, f"u{unit}") for _ in range(count)]
        for here, units, place in self._split(address, count * unit, unit, label):
            for k in range(count):
                found[k][here] = units[place + k]
        return found

    def store(self, address: Array, values: list[Array], unit: int, label: object) -> None:
        """Write units of ``unit`` bytes at each address.

        Raises:
            Fault: outside of `out`, misaligned, or onto a byte that was written before.
        """
        width = len(values) * unit
        wrong = (address < self.out[0]) | (address + width > self.out[1])
        if wrong.any():
            raise Fault(f"{label}: {int(wrong.sum())} threads write outside of the output")
        for here, units, place in self._split(address, width, unit, label):
            for k, value in enumerate(values):
                units[place + k] = value[here]
        for k in range(width):
            byte = address - self.out[0] + k
            if self.written[byte].any() or len(np.unique(byte)) < len(byte):
                raise Fault(f"{label}: a byte of the output is written twice")
            self.written[byte] = True

    def check_complete(self) -> None:
        """Fault unless every byte of the output was written."""
        if not self.written.all():
            missing = np.flatnonzero(~self.written)
            raise Fault(f"{len(missing)} of {len(self.written)} bytes are never written, the first at {missing[0]}")

    def _split(self, address: Array, width: int, unit: int, label: object) -> Iterator[tuple[Array, Array, Array]]:
        """Which addresses lie in which span: flags, its units, and places among them."""
        if (address % width).any():
            wrong = int(address[address % width != 0][0])
            raise Fault(f"{label}: misaligned address {wrong:#x} for {width} bytes")
        span = np.searchsorted(self.starts, address, "right") - 1
        outside = (span < 0) | (address + width > self.ends[np.maximum(span, 0)])
        if outside.any():
            wrong, near = int(address[outside][0]), int(span[outside][0])
            place = f"byte {wrong - self.spans[near][0]} of a tensor of {np.diff(self.spans[near])[0]}"
            raise Fault(f"{label}: {int(outside.sum())} threads outside of all tensors, the first at {place}")
        for number in np.unique(span):
            here, start = span == number, self.spans[number][0]
            units = self.bytes[number][: len(self.bytes[number]) // unit * unit].view(f"u{unit}")
            yield here, units, (address[here] - (start - start % 16)) // unit


def _span(tensor: Tensor) -> tuple[int, int]:
    reach = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    return start, start + (reach + 1) * tensor.element_size()


def _view(start: int, end: int) -> Array:
    """Bytes at addresses; a last unit of up to 8 bytes that begins before ``end`` is whole, though it is never used."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * (end - start)).from_address(start))
