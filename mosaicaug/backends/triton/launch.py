"""Arguments of a kernel launch, computed on the host from shapes, strides and the plan's table alone.

`prepare` chooses how wide the kernel reads and writes and how much work a program gets; `place_inputs` brings the
small tensors (table, index, window, mean, scale) to the device in one transfer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mosaicaug.backends.request import Request
from mosaicaug.backends.resample import compute_dtype
from mosaicaug.backends.triton.table import Table
from mosaicaug.backends.triton.upload import upload_once
from mosaicaug.contents import Overlay

Launch = tuple[tuple[int], dict[str, Any]]  # number of programs, and the kernel's arguments

SMALL = ("table", "index", "window", "mean", "scale")  # tensors that describe a launch
CHUNKS = 128  # per program: one for each thread of four warps; two or four where they are small
MOST_ROWS = 8  # of a chunk
THREAD_BYTES = 96  # of pixels that a thread makes: two rows of three planes of 16 bytes, in 24 registers
# A copy moves bits, whatever they mean; so there is one kernel for each size of element.
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def prepare(images: Tensor, table: Table, request: Request, out: Tensor) -> Launch:
    """Number of programs to launch, and the kernel's arguments by name, but for those of `place_inputs`.

    Args:
        images: ``[N, *lead, C, H, W]``, stored images.
        table: the plans to carry out.
        request: the checked arguments of the call.
        out: ``[plans * B, *lead, C, H, W]``, contiguous or channels_last.
    """
    index, window, mean, std = request.index, request.window, request.mean, request.std
    channels, (height, width) = images.shape[-3], table.size
    frames = math.prod(images.shape[1:-3])

    # 1. The dtype of arithmetic, and of elements where there is none.
    compute = None
    interpolates = table.overlay == Overlay.RESAMPLED and not request.nearest
    if mean is not None or std is not None or table.blend or interpolates:
        compute = compute_dtype(images)
    if compute is None and images.dtype == out.dtype:
        images, out = (tensor.view(BITS[tensor.element_size()]) for tensor in (images, out))

    # 2. Layouts: elements of a pixel side by side in the output, and whether its runs are runs of the source.
    stride_n, *lead, stride_c, stride_y, stride_x = images.stride()
    stride_t = lead[0] if lead else 0
    inner = 1 if out.is_contiguous() else channels
    contiguous = window is None and stride_x == inner and (inner == 1 or stride_c == 1)
    reach = (images.shape[-1] - 1) * stride_x + (channels - 1) * stride_c * (inner > 1)  # elements, of a row

    # 3. Width of a chunk: 16 bytes, or fewer where rows and tiles are no whole number of chunks wide.
    widest = 16 // out.element_size()
    if table.overlay == Overlay.RESAMPLED or (images.element_size() == 1 and not contiguous):
        widest = min(widest, 4)  # four taps of more would not fit the registers, and gathered bytes span more lines
    # Stores have to be aligned too: wider ones would go through shared memory.
    lengths = width * inner, *(width // grid * inner for grid in table.grids)
    vec = math.gcd(widest, out.data_ptr() // out.element_size(), *lengths)
    begin = images.data_ptr() // images.element_size()
    align = math.gcd(vec, begin, stride_n, stride_t, stride_y, *((stride_c,) if inner == 1 else ()))

    # Bytes and halves under an overlay that moves none are chosen four and two at a time.
    size = images.element_size()
    in_place = table.overlay in (Overlay.WHOLE, Overlay.IN_PLACE)
    copies = compute is None and images.dtype == out.dtype and in_place
    packed = contiguous and copies and size < 4 and align * size % 4 == 0 and out.data_ptr() % 4 == 0

    # 4. Work of a program: a chunk of some rows of some planes for each thread, so that addresses are computed once for
    # all of them and enough bytes are on their way; but no more than fit the registers.
    planes = frames * channels // inner
    planes_each = next(count for count in (4, 3, 2, 1) if planes % count == 0)
    in_registers = 4 if table.blend and not contiguous else out.element_size()  # bytes of an element until it is stored
    row_bytes = planes_each * vec * in_registers
    resamples = table.overlay == Overlay.RESAMPLED  # whose four taps fill the registers by themselves
    # An overlay reads a second image: one row is enough on its way, and leaves registers for more programs. On an H100,
    # halves and bytes of CutMix and MixUp take 5 to 25 % less time so; not where the channels lie side by side, nor (by
    # the model) where pixels are gathered, whose addresses cost more than their registers.
    single = resamples or (table.overlay and inner == 1 and contiguous)
    most = 1 if single else max(1, min(MOST_ROWS, THREAD_BYTES // row_bytes))
    heights = [height // grid for grid in table.grids] or [height]
    rows_each = next(rows for rows in range(most, 0, -1) if all(extent % rows == 0 for extent in heights))
    chunk_bytes = rows_each * row_bytes
    chunks = CHUNKS * (1 if resamples or chunk_bytes > 16 else 2 if chunk_bytes > 8 else 4)
    blocks = -(-(-(-height // rows_each) * (width * inner // vec)) // chunks)

    arguments = {
        "images_ptr": images,
        "out_ptr": out,
        "overlay_at": table.overlay_at,
        "stride_n": stride_n,
        "stride_t": stride_t,
        "stride_c": stride_c,
        "stride_y": stride_y,
        "stride_x": stride_x,
        "batch": table.batch,
        "outputs": table.outputs,
        "HEIGHT": height,
        "WIDTH": width,
        "CHANNELS": channels,
        "FRAMES": frames,
        "TILES": bool(table.grids),
        "GRID": table.grid,
        "PLANS": table.plans,
        "OVERLAY": int(table.overlay),
        "BLEND": table.blend,
        "INDEX": index is not None,
        "WINDOW": window is not None,
        "MEAN": mean is not None,
        "SCALE": std is not None,
        "COMPUTE": compute,
        "INNER": inner,
        "CONTIGUOUS": contiguous,
        "ALIGN": align if contiguous else 1,
        "PACKED": packed,
        "OFFSET": torch.int32 if reach < 2**31 else torch.int64,
        "VEC": vec,
        "PLANES": planes_each,
        "ROWS": rows_each,
        "CHUNKS": chunks,
    }
    return (table.outputs * (planes // planes_each) * blocks,), arguments


def place_inputs(
    table: Table, device: torch.device, request: Request
) -> tuple[tuple[Tensor | None, ...], tuple[int, ...]]:
    """Bring ``table`` and the small tensors of ``request`` to the device.

    What is still on the CPU goes there in one upload, for the next launch alone; what is there already stays where it
    is.

    Returns:
        The tensors of `SMALL` on the device, None where there is none; and the first element of each in its tensor.

    Raises:
        ValueError: something is still on the CPU while a CUDA graph is being captured.
    """
    # 1. What has to be uploaded, and what may stay.
    values = (request.index, request.window, request.mean, request.scale)
    waiting = {
        place: value for place, value in enumerate(values, 1) if value is not None and value.device.type == "cpu"
    }
    parts = [table.words] if table.words.device.type == "cpu" else []
    if (waiting or parts) and device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        late = [*(SMALL[place] for place in waiting), *(["plan"] if parts else [])]
        raise ValueError(
            f"apply: a CUDA graph reads fixed memory of the GPU; pass {late} as CUDA tensors or PlanBuffer"
        )
    tensors = [table.words, *(None if value is None else value.contiguous() for value in values)]
    begins = [0] * len(tensors)

    # 2. One row of 32-bit words: the table, then each value, padded to a multiple of its element's size.
    begin = sum(map(len, parts))
    for place, value in waiting.items():
        size = value.element_size() // 4 if value.is_floating_point() else 1  # words of an element
        padding = begin % size
        words = value.contiguous().view(torch.int32) if value.is_floating_point() else value.int()
        parts += [words.new_zeros(padding), words.flatten()]
        begins[place] = (begin + padding) // size
        begin += padding + words.numel()

    # 3. One upload for all.
    if parts:
        words = upload_once(parts[0] if len(parts) == 1 else torch.cat(parts), device)
        for place in waiting:
            tensors[place] = words
        if table.words.device.type == "cpu":
            tensors[0] = words
    return tuple(tensors), tuple(begins)
