"""Arithmetic of PTX instructions on numpy arrays, with the machine's wrapping and rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.helpers.ptx.memory import Array, Fault

TYPES = {
    "pred": np.bool_,
    **{
        f"{kind}{bits}": np.dtype(f"{name}{bits // 8}").type
        for bits in (8, 16, 32, 64)
        for kind, name in (("b", "u"), ("u", "u"), ("s", "i"))
    },
    "f16": np.float16,
    "f32": np.float32,
    "f64": np.float64,
}
BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "min": lambda a, b: np.fmin(a, b) if a.dtype.kind == "f" else np.minimum(a, b),
    "max": lambda a, b: np.fmax(a, b) if a.dtype.kind == "f" else np.maximum(a, b),
}
COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "lo": lambda a, b: a < b,
    "ls": lambda a, b: a <= b,
    "hi": lambda a, b: a > b,
    "hs": lambda a, b: a >= b,
}


def divide(first: Array, second: Array) -> Array:
    """Quotient of integers, rounded towards zero."""
    if (second == 0).any():
        raise Fault("division by zero")
    return ((first.astype(np.int64) - _remainder(first, second)) // second.astype(np.int64)).astype(first.dtype)


def remainder(first: Array, second: Array) -> Array:
    """Rest of a division of integers that is rounded towards zero."""
    if (second == 0).any():
        raise Fault("division by zero")
    return _remainder(first, second).astype(first.dtype)


def shift(value: Array, amount: Array, *, left: bool) -> Array:
    """Shift of bits; from the width of the register on nothing is left but the sign."""
    bits = 8 * value.dtype.itemsize
    held = np.minimum(amount, bits - 1).astype(value.dtype)
    shifted: Array = value << held if left else value >> held
    rest = np.zeros_like(shifted) if left or value.dtype.kind == "u" else shifted
    return np.where(amount >= bits, rest, shifted)


def extract(value: Array, position: int, length: int) -> Array:
    """Field of bits (``bfe``)."""
    bits = 8 * value.dtype.itemsize
    assert 0 < length <= bits - position  # otherwise the rest is the sign's
    left = bits - position - length
    field: Array = (value << value.dtype.type(left)) >> value.dtype.type(bits - length)
    return field


def permute(first: Array, second: Array, selector: Array) -> Array:
    """Four of eight bytes, chosen by the selector's nibbles (``prmt``)."""
    both = first.astype(np.uint64) | (second.astype(np.uint64) << np.uint64(32))
    result: Array = np.zeros((1, 1), np.uint32)
    for place in range(4):
        choice = (selector >> np.uint32(4 * place)) & np.uint32(15)
        byte = (both >> (8 * (choice & np.uint32(7))).astype(np.uint64)) & np.uint64(255)
        sign = np.where(byte & np.uint64(128), np.uint64(255), np.uint64(0))
        byte = np.where(choice & np.uint32(8), sign, byte)
        result = result | (byte.astype(np.uint32) << np.uint32(8 * place))
    return result


def lookup(table: int, values: Sequence[Array]) -> Array:
    """Bitwise function of three words by its table of eight bits (``lop3``)."""
    first, second, third = values
    result: Array = np.zeros((1, 1), first.dtype)
    for number in range(8):
        if table >> number & 1:
            parts = (v if number >> (2 - k) & 1 else ~v for k, v in enumerate((first, second, third)))
            one, two, three = parts
            result = result | (one & two & three)
    return result


def from_bfloat(bits: Array) -> Array:
    """Float32 of bfloat16's bits."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_bfloat(value: Array) -> Array:
    """Bits of bfloat16, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(value, np.float32).view(np.uint32)
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.where(np.isnan(value), np.uint16(0x7FFF), ((bits + half) >> np.uint32(16)).astype(np.uint16))


def convert(values: Sequence[Array], suffix: Sequence[str]) -> Array:
    """Conversion (``cvt``) from the last type of the opcode into the one before it."""
    into, source = suffix[-2], suffix[-1]
    if into in ("bf16x2", "f16x2"):
        high, low = (
            to_bfloat(value) if into[0] == "b" else value.astype(np.float16).view(np.uint16) for value in values
        )
        return (high.astype(np.uint32) << np.uint32(16)) | low.astype(np.uint32)
    (value,) = values
    if into == "bf16":
        return to_bfloat(value)
    if into[0] != "f" and source[0] in "fb" and value.dtype.kind == "f":
        limits = np.iinfo(TYPES[into])
        rounding = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}[suffix[0]]
        whole = np.nan_to_num(rounding(value.astype(np.float64)), nan=0.0, posinf=limits.max, neginf=limits.min)
        clipped: Array = np.clip(whole, limits.min, limits.max).astype(TYPES[into])
        return clipped
    return value.astype(TYPES[into])


def _remainder(first: Array, second: Array) -> Array:
    rest: Array = np.fmod(first.astype(np.int64), second.astype(np.int64))
    return rest
