"""What a launch of the kernel needs to know: decided on the host, from shapes, strides and the plan's table alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mosaicaug.backends.request import Request
from mosaicaug.backends.resample import compute_dtype
from mosaicaug.backends.triton.table import Overlay, Table, upload

CHUNKS = 256  # per program: two for each thread of four warps
# A copy moves bits, whatever they mean; so there is one kernel for each size of element.
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def prepare(images: Tensor, table: Table, request: Request, out: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    """Number of programs to launch, and the kernel's arguments."""
    index, window, mean, scale = request.index, request.window, request.mean, request.scale
    channels, (height, width) = images.shape[-3], table.size
    times = math.prod(images.shape[1:-3])
    unit = 1 if out.is_contiguous() else channels
    work = None
    interpolates = table.overlay == Overlay.RESAMPLED and not request.nearest
    if mean is not None or scale is not None or table.blend or interpolates:
        work = compute_dtype(images)
    if work is None and images.dtype == out.dtype:
        images, out = (tensor.view(BITS[tensor.element_size()]) for tensor in (images, out))
    n, t, c, y, x = images.stride(0), *((images.stride(1),) if images.ndim == 5 else (0,)), *images.stride()[-3:]
    runs = window is None and x == unit and (unit == 1 or c == 1)
    widest = 16 // out.element_size()
    if table.overlay == Overlay.RESAMPLED:
        widest = min(widest, 4)  # more would not fit the registers
    v = math.gcd(widest, width * unit, *(width // grid * unit for grid in table.grids))
    begin = images.data_ptr() // images.element_size()
    align = math.gcd(v, begin, n, t, y, *((c,) if unit == 1 else ())) if runs else 1
    reach = (images.shape[-1] - 1) * x + (channels - 1) * c * (unit > 1)
    planes = times * channels // unit
    planes_each = next(count for count in (4, 3, 2, 1) if planes % count == 0)
    light = runs and not table.blend and table.overlay < Overlay.RESAMPLED
    chunks = CHUNKS if light else CHUNKS // 2  # addresses of single pixels and a second image take registers
    arguments = {
        "images": images,
        "out": out,
        **upload_inputs(table, images.device, index=index, window=window, mean=mean, scale=scale),
        "overlay_at": table.overlay_at,
        "stride_n": n,
        "stride_t": t,
        "stride_c": c,
        "stride_y": y,
        "stride_x": x,
        "batch": table.batch,
        "outputs": table.outputs,
        "HEIGHT": height,
        "WIDTH": width,
        "CHANNELS": channels,
        "TIMES": times,
        "TILES": bool(table.grids),
        "GRID": table.grid,
        "PLANS": table.plans,
        "OVERLAY": int(table.overlay),
        "BLEND": table.blend,
        "INDEX": index is not None,
        "WINDOW": window is not None,
        "MEAN": mean is not None,
        "SCALE": scale is not None,
        "WORK": work,
        "UNIT": unit,
        "RUNS": runs,
        "ALIGN": align,
        "WORD": torch.int32 if reach < 2**31 else torch.int64,
        "V": v,
        "PLANES": planes_each,
        "CHUNKS": chunks,
    }
    return (table.outputs * -(-(height * width * unit // v) // chunks), planes // planes_each), arguments


def upload_inputs(table: Table, device: torch.device, **values: Tensor | None) -> dict[str, Tensor | int | None]:
    """Where a kernel finds ``table`` and each of ``values``: a tensor, and ``NAME_at``, its first element there.

    What is still on the CPU goes to the device in one upload; what is there already stays where it is.

    Raises:
        ValueError: something is still on the CPU while a CUDA graph is being captured.
    """
    waiting = {name: value for name, value in values.items() if value is not None and value.device.type == "cpu"}
    placed: dict[str, Tensor | int | None] = {"table": table.words}
    for name, value in values.items():
        placed[name], placed[f"{name}_at"] = None if value is None else value.contiguous(), 0
    parts = [table.words] if table.words.device.type == "cpu" else []
    if (waiting or parts) and device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        late = [*waiting, *(["plan"] if parts else [])]
        raise ValueError(
            f"apply: a CUDA graph reads fixed memory of the GPU; pass {late} as CUDA tensors or PlanBuffer"
        )
    begin = sum(map(len, parts))
    for name, value in waiting.items():
        size = value.element_size() // 4 if value.is_floating_point() else 1  # words of an element
        padding = begin % size
        words = value.contiguous().view(torch.int32) if value.is_floating_point() else value.int()
        parts += [words.new_zeros(padding), words.flatten()]
        placed[f"{name}_at"] = (begin + padding) // size
        begin += padding + words.numel()
    if parts:
        words = upload(torch.cat(parts), device)
        placed.update(dict.fromkeys(waiting, words))
        if table.words.device.type == "cpu":
            placed["table"] = words
    return placed
