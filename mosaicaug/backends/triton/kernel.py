"""The Triton backend: one kernel for every plan, one launch and one small upload per call.

A program makes a few chunks of one output image, in the order in which the output is stored, so that stores are always
wide. A chunk is as many elements as 16 bytes hold, or fewer where a tile is not a whole number of chunks wide; it lies
in one row and one tile, so where it comes from is worked out once for its elements and for all channels. What a plan
does not use is left out at compile time.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from mosaicaug.backends.request import Request
from mosaicaug.backends.triton.launch import prepare
from mosaicaug.backends.triton.table import Table

OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}  # the reference rounds after every step, and so do we
TYPES = {torch.float32: tl.float32, torch.float64: tl.float64, torch.int32: tl.int32, torch.int64: tl.int64}


@triton.jit
def _row(
    images, entry, y, shift, index, index_at, window, window_at, stride_n, stride_y, stride_x,
    INDEX: tl.constexpr, WINDOW: tl.constexpr, WIDTH: tl.constexpr, WORD: tl.constexpr,
):  # fmt: skip
    """Where the row that a batch entry shows at ``y`` begins, its column ``shift``, and the step to the next column."""
    begin, step = shift.to(WORD) * stride_x, tl.zeros_like(shift).to(WORD) + stride_x
    if WINDOW:
        place = window + window_at + entry * 3
        y += tl.load(place).to(tl.int32)
        left = tl.load(place + 1).to(WORD)
        flip = tl.load(place + 2) != 0
        begin = tl.where(flip, (WIDTH - 1 - shift.to(WORD)) * stride_x, begin) + left * stride_x
        step = tl.where(flip, -step, step)
    stored = entry.to(tl.int64)
    if INDEX:
        stored = tl.load(index + index_at + entry).to(tl.int64)
    return images + (stored * stride_n + y.to(tl.int64) * stride_y), begin, step


@triton.jit
def _taps(offset, start, end, length, WORK: tl.constexpr):
    """Two source positions, corners aligned, and the weight of the second."""
    last, steps = (end - start - 1).to(WORK), tl.maximum(length - 1, 1).to(WORK)
    scale = tl.div_rn(last, steps) if WORK == tl.float32 else last / steps
    scale = tl.where(length > 1, scale, 0.0)
    position = tl.maximum(offset, 0).to(WORK) * scale
    near = tl.minimum(position.to(tl.int32), end - start - 1)
    far = tl.minimum(near + 1, end - start - 1)
    weight = tl.minimum(tl.maximum(position - near.to(WORK), 0.0), 1.0)
    return start + near, start + far, weight


@triton.jit
def _of_channel(values, phase, c, V: tl.constexpr, UNIT: tl.constexpr):
    """The value of each element's channel, ``c``; ``phase`` is the channel of a chunk's first element."""
    if UNIT != 3:
        return tl.load(values + c)
    # The three are turned once for the whole chunk; then element j takes number j % 3, which costs nothing.
    zero, one, two = tl.load(values), tl.load(values + 1), tl.load(values + 2)
    turned_0 = tl.where(phase == 0, zero, tl.where(phase == 1, one, two))
    turned_1 = tl.where(phase == 0, one, tl.where(phase == 1, two, zero))
    turned_2 = tl.where(phase == 0, two, tl.where(phase == 1, zero, one))
    j = (tl.arange(0, V) % 3)[None, :]
    return tl.where(j == 0, turned_0[:, None], tl.where(j == 1, turned_1[:, None], turned_2[:, None]))


@triton.jit
def _load_box(box):
    return tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3)


@triton.jit
def _cast(value, DTYPE: tl.constexpr):
    """Cast with torch's rounding: to uint8 the nearest, ties to even, clamped; float64 to halves by way of float32."""
    if DTYPE == tl.uint8 and value.dtype.is_floating():
        value = tl.minimum(tl.maximum(value, 0.0), 255.0)
        if value.dtype == tl.float64:
            value = value + 6755399441055744.0 - 6755399441055744.0  # 1.5 * 2**52: the fraction is rounded off
        else:
            value = value.to(tl.float32) + 12582912.0 - 12582912.0  # 1.5 * 2**23
        value = value.to(tl.int32)
    if (value.dtype == tl.float64 or value.dtype.is_int()) and (DTYPE == tl.float16 or DTYPE == tl.bfloat16):
        value = value.to(tl.float32)
    return value.to(DTYPE)


# Numbers that change from call to call and must not make the kernel compile anew when one of them is 1 or 16.
_ANY = ("overlay_at", "index_at", "window_at", "mean_at", "scale_at", "batch", "outputs")


@triton.jit(do_not_specialize=_ANY)
def _make(
    images, out, table, index, window, mean, scale,
    overlay_at, index_at, window_at, mean_at, scale_at,
    stride_n, stride_t, stride_c, stride_y, stride_x,
    batch, outputs,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, TIMES: tl.constexpr,
    TILES: tl.constexpr,  # some tile is away from home
    GRID: tl.constexpr,  # tiles per side, or 0 where the plans differ in it
    PLANS: tl.constexpr,
    OVERLAY: tl.constexpr,  # see `Overlay`
    BLEND: tl.constexpr,  # some opacity is below 1
    INDEX: tl.constexpr, WINDOW: tl.constexpr, MEAN: tl.constexpr, SCALE: tl.constexpr,
    WORK: tl.constexpr,  # dtype of arithmetic; None where there is none
    UNIT: tl.constexpr,  # elements of a pixel that lie side by side in the output: 1, or C if channels_last
    RUNS: tl.constexpr,  # a run of the output is a run of the source
    ALIGN: tl.constexpr,  # elements that every run of the source starts at a multiple of
    WORD: tl.constexpr,  # int32, or int64 where a row of the source reaches further
    V: tl.constexpr,  # elements of a chunk
    PLANES: tl.constexpr,  # planes of a program
    CHUNKS: tl.constexpr,  # chunks of a program
):  # fmt: skip
    ROW: tl.constexpr = WIDTH * UNIT // V  # chunks
    BLOCKS: tl.constexpr = (HEIGHT * ROW + CHUNKS - 1) // CHUNKS
    program = tl.program_id(0)
    image = program // BLOCKS
    entry = image
    if PLANS > 1:
        entry = image % batch
    chunk = (program % BLOCKS) * CHUNKS + tl.arange(0, CHUNKS)
    live = chunk < HEIGHT * ROW
    y = (chunk.to(tl.uint32) // ROW).to(tl.int32)
    first = (chunk - y * ROW) * V
    column = first[:, None] + tl.arange(0, V)[None, :]  # [CHUNKS, V], of the row's elements
    x = first[:, None] + tl.arange(0, V)[None, :]
    c = tl.zeros_like(x)
    if UNIT > 1:
        x = (column.to(tl.uint32) // UNIT).to(tl.int32)
        c = column - x * UNIT

    source, from_y, shift = tl.zeros_like(y) + entry, y, tl.zeros_like(y)
    if TILES:
        tiles, grid = table, GRID
        if GRID == 0:
            grid = tl.load(table + 2 * (image // batch))
        tiles = table + tl.load(table + 2 * (image // batch if PLANS > 1 else 0) + 1)
        tile_height, tile_width = HEIGHT // grid, WIDTH // grid
        row, col = y // tile_height, first // (tile_width * UNIT)
        tiled = live & (row < grid) & (col < grid)
        tile = tl.load(tiles + (entry * grid + row) * grid + col, mask=tiled, other=0)
        above = tile // grid  # image * grid + row
        source = tl.where(tiled, above // grid, entry)
        from_y += tl.where(tiled, (above % grid - row) * tile_height, 0)
        shift = tl.where(tiled, (tile % grid - col) * tile_width, 0)
    base, begin, step = _row(
        images, source, from_y, shift, index, index_at, window, window_at, stride_n, stride_y, stride_x,
        INDEX, WINDOW, WIDTH, WORD,
    )  # fmt: skip
    if not RUNS:
        offset = begin[:, None] + x.to(WORD) * step[:, None]
        if UNIT > 1:
            offset += c.to(WORD) * stride_c
    base_mask = live[:, None]

    if OVERLAY > 0:
        field = table + overlay_at
        partner = tl.zeros_like(y) + tl.load(field + image)
        opacity = tl.load((field + outputs).to(tl.pointer_type(tl.float32), bitcast=True) + image)
        opaque = tl.load(field + outputs + image) == 0x3F800000  # the bits of 1.0
        from_y0, from_x0, from_y1, from_x1 = _load_box(field + 2 * outputs + 4 * image)
        to_y0, to_x0, to_y1, to_x1 = _load_box(field + 6 * outputs + 4 * image)
        rows = live & (y >= to_y0) & (y < to_y1)
        inside = rows[:, None] & (column >= to_x0 * UNIT) & (column < to_x1 * UNIT)
        # What the overlay hides is not read. Whole chunks are, or nothing of them, so that reads stay wide.
        covered = rows & (first >= to_x0 * UNIT) & (first + V <= to_x1 * UNIT) & opaque
        base_mask = (live & (covered == 0))[:, None]
        top, near = y - to_y0 + from_y0, x - to_x0 + from_x0
        if OVERLAY == 1:
            top, near = y, x
        if OVERLAY == 3:
            PRECISION: tl.constexpr = tl.float32 if WORK is None else WORK
            top, bottom, down = _taps(y - to_y0, from_y0, from_y1, to_y1 - to_y0, PRECISION)
            near, far, across = _taps(x - to_x0, from_x0, from_x1, to_x1 - to_x0, PRECISION)
            if WORK is None:  # the nearest pixel
                top, near = tl.where(down > 0.5, bottom, top), tl.where(across > 0.5, far, near)
        over, over_begin, over_step = _row(
            images, partner, top, tl.zeros_like(y), index, index_at, window, window_at, stride_n, stride_y, stride_x,
            INDEX, WINDOW, WIDTH, WORD,
        )  # fmt: skip
        over_mask = inside
        if OVERLAY == 1 and RUNS:
            over_mask = (rows & (first + V > to_x0 * UNIT) & (first < to_x1 * UNIT))[:, None]
        else:
            near_at = over_begin[:, None] + near.to(WORD) * over_step[:, None]
            if UNIT > 1:
                near_at += c.to(WORD) * stride_c
        if OVERLAY == 3 and WORK is not None:
            far_at = near_at + (far - near).to(WORD) * over_step[:, None]
            under, over_begin, over_step = _row(
                images, partner, bottom, tl.zeros_like(y), index, index_at, window, window_at,
                stride_n, stride_y, stride_x, INDEX, WINDOW, WIDTH, WORD,
            )  # fmt: skip
            same = (to_y1 - to_y0 == from_y1 - from_y0) & (to_x1 - to_x0 == from_x1 - from_x0)

    if MEAN:
        mean = mean.to(tl.pointer_type(WORK), bitcast=True) + mean_at
    if SCALE:
        scale = scale.to(tl.pointer_type(WORK), bitcast=True) + scale_at
    for k in tl.static_range(PLANES):
        plane = tl.program_id(1) * PLANES + k  # of CHANNELS * TIMES, or of TIMES if channels are side by side
        channel, time = plane % CHANNELS, plane // CHANNELS
        if UNIT > 1:
            time = plane
        away = time.to(tl.int64) * stride_t
        if UNIT == 1:
            away += channel.to(tl.int64) * stride_c
        if RUNS:
            here = tl.multiple_of(
                base + (away + begin + first), ALIGN * (images.dtype.element_ty.primitive_bitwidth // 8)
            )
            value = tl.load(here[:, None] + tl.arange(0, V)[None, :], mask=base_mask, other=0)
        else:
            value = tl.load((base + away)[:, None] + offset, mask=base_mask, other=0)
        if WORK is not None:
            value = value.to(WORK)
        if OVERLAY > 0:
            if OVERLAY == 1 and RUNS:
                here = tl.multiple_of(over + (away + first), ALIGN * (images.dtype.element_ty.primitive_bitwidth // 8))
                laid = tl.load(here[:, None] + tl.arange(0, V)[None, :], mask=over_mask, other=0)
            else:
                laid = tl.load((over + away)[:, None] + near_at, mask=over_mask, other=0)
            if WORK is not None:
                laid = laid.to(WORK)
            if OVERLAY == 3 and WORK is not None:
                right = tl.load((over + away)[:, None] + far_at, mask=inside, other=0).to(WORK)
                below = tl.load((under + away)[:, None] + near_at, mask=inside, other=0).to(WORK)
                below_right = tl.load((under + away)[:, None] + far_at, mask=inside, other=0).to(WORK)
                near_one = (1 - down[:, None]) * laid + down[:, None] * below
                far_one = (1 - down[:, None]) * right + down[:, None] * below_right
                laid = tl.where(same, laid, (1 - across) * near_one + across * far_one)
            if BLEND:
                weight = opacity.to(WORK)
                laid = tl.where(opaque, laid, (1 - weight) * value + weight * laid)
            value = tl.where(inside, laid, value)
        if MEAN:
            value = value - (tl.load(mean + channel) if UNIT == 1 else _of_channel(mean, first % UNIT, c, V, UNIT))
        if SCALE:
            value = value * (tl.load(scale + channel) if UNIT == 1 else _of_channel(scale, first % UNIT, c, V, UNIT))
        into = (image.to(tl.int64) * (TIMES * CHANNELS // UNIT) + plane) * (HEIGHT * ROW * V) + chunk * V
        into = tl.multiple_of(into, V)[:, None] + tl.arange(0, V)[None, :]
        tl.store(out + into, _cast(value, out.dtype.element_ty), mask=live[:, None])


def check_device(device: torch.device) -> None:
    """ValueError if the kernel cannot run there."""
    if device.type != "cuda" and not (device.type == "cpu" and isinstance(_make, InterpretedFunction)):
        raise ValueError(
            f"apply: backend='triton' needs CUDA images, got {device.type}; move them with images.cuda(), use "
            "backend='torch', or set TRITON_INTERPRET=1 before Python starts to try the kernel on a CPU"
        )


def run(images: Tensor, table: Table, request: Request, out: Tensor | None) -> Tensor:
    """Carry out the plans of ``table`` on checked arguments, into ``out`` ``[plans * B, *lead, H, W]`` if passed.

    ``out`` is contiguous or channels_last.
    """
    if out is None:
        out = request.make_output((table.outputs, *images.shape[1:-2], *table.size), images.device)
    if out.numel() == 0:
        return out
    programs, arguments = typed_arguments(images, table, request, out)
    with torch.cuda.device(images.device) if images.is_cuda else nullcontext():
        _make[programs](**arguments, **OPTIONS)
    return out


def typed_arguments(
    images: Tensor, table: Table, request: Request, out: Tensor
) -> tuple[tuple[int, int], dict[str, Any]]:
    """Number of programs to launch, and the kernel's arguments with Triton's types."""
    programs, arguments = prepare(images, table, request, out)
    arguments.update((name, TYPES[value]) for name, value in arguments.items() if isinstance(value, torch.dtype))
    return programs, arguments
