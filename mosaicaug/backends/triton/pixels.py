"""Parts of the Triton kernel: addresses of stored rows, positions of bilinear taps, channels, and casts."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def row_pointers(
    images_ptr, entry, y, shift_x, index_ptr, index_at, window_ptr, window_at, stride_n, stride_y, stride_x,
    INDEX: tl.constexpr, WINDOW: tl.constexpr, WIDTH: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """Pointer to the stored row that an entry shows at ``y``, offset of its column ``shift_x``, and column step."""
    begin, step = shift_x.to(OFFSET) * stride_x, tl.zeros_like(shift_x).to(OFFSET) + stride_x
    if WINDOW:
        entry_ptr = window_ptr + window_at + entry * 3
        y += tl.load(entry_ptr).to(tl.int32)
        left = tl.load(entry_ptr + 1).to(OFFSET)
        flip = tl.load(entry_ptr + 2) != 0
        begin = tl.where(flip, (WIDTH - 1 - shift_x.to(OFFSET)) * stride_x, begin) + left * stride_x
        step = tl.where(flip, -step, step)
    stored = entry.to(tl.int64)
    if INDEX:
        stored = tl.load(index_ptr + index_at + entry).to(tl.int64)
    return images_ptr + (stored * stride_n + y.to(tl.int64) * stride_y), begin, step


@triton.jit
def bilinear_taps(offset, start, end, length, COMPUTE: tl.constexpr):
    """Two source positions per offset, corners aligned, and the weight of the second."""
    last, steps = (end - start - 1).to(COMPUTE), tl.maximum(length - 1, 1).to(COMPUTE)
    scale = tl.div_rn(last, steps) if COMPUTE == tl.float32 else last / steps
    scale = tl.where(length > 1, scale, 0.0)
    position = tl.maximum(offset, 0).to(COMPUTE) * scale
    near = tl.minimum(position.to(tl.int32), end - start - 1)
    far = tl.minimum(near + 1, end - start - 1)
    weight = tl.minimum(tl.maximum(position - near.to(COMPUTE), 0.0), 1.0)
    return start + near, start + far, weight


@triton.jit
def per_channel(values_ptr, chunk_start, c, VEC: tl.constexpr, INNER: tl.constexpr):
    """Value of each element's channel ``c``, where the channels of a pixel lie side by side."""
    if INNER != 3:
        return tl.load(values_ptr + c)
    phase = chunk_start % 3  # channel of a chunk's first element
    # The three values are rotated by the phase once per chunk; element j then takes number j % 3, which costs nothing.
    zero, one, two = tl.load(values_ptr), tl.load(values_ptr + 1), tl.load(values_ptr + 2)
    rotated_0 = tl.where(phase == 0, zero, tl.where(phase == 1, one, two))
    rotated_1 = tl.where(phase == 0, one, tl.where(phase == 1, two, zero))
    rotated_2 = tl.where(phase == 0, two, tl.where(phase == 1, zero, one))
    j = (tl.arange(0, VEC) % 3)[None, :]
    return tl.where(j == 0, rotated_0[:, None], tl.where(j == 1, rotated_1[:, None], rotated_2[:, None]))


@triton.jit
def load_box(box_ptr):
    """The four numbers of a box: y0, x0, y1, x1."""
    return tl.load(box_ptr), tl.load(box_ptr + 1), tl.load(box_ptr + 2), tl.load(box_ptr + 3)


@triton.jit
def to_compute(value, COMPUTE: tl.constexpr):
    """Pixels in the dtype of arithmetic; bytes become float32 by their bits, without the conversion unit."""
    if COMPUTE == tl.float32 and value.dtype == tl.uint8:
        return (value.to(tl.int32) | 0x4B000000).to(tl.float32, bitcast=True) - 8388608.0  # 2**23 + byte, less 2**23
    return value.to(COMPUTE)


@triton.jit
def cast(value, DTYPE: tl.constexpr, CLAMP: tl.constexpr):
    """Cast with torch's rounding: to uint8 the nearest, ties to even; float64 to halves by way of float32.

    Without ``CLAMP`` what becomes a byte has to lie in 0 to 255.
    """
    if DTYPE == tl.uint8 and value.dtype.is_floating():
        if value.dtype != tl.float64:
            value = value.to(tl.float32)  # Triton's interpreter cannot compare bfloat16
        if CLAMP:
            value = tl.minimum(tl.maximum(value, 0.0), 255.0)
        if value.dtype == tl.float64:
            value = value + 6755399441055744.0 - 6755399441055744.0  # 1.5 * 2**52: the fraction is rounded off
            value = value.to(tl.int32)
        else:
            value = (value + 12582912.0).to(tl.int32, bitcast=True)  # 1.5 * 2**23 + byte: the lowest bits are the byte
    if (value.dtype == tl.float64 or value.dtype.is_int()) and (DTYPE == tl.float16 or DTYPE == tl.bfloat16):
        value = value.to(tl.float32)
    return value.to(DTYPE)


@triton.jit
def as_units(pointers, PACKED: tl.constexpr):
    """Pointers to elements, or to the 32-bit words that hold them."""
    return pointers.to(tl.pointer_type(tl.int32), bitcast=True) if PACKED else pointers
