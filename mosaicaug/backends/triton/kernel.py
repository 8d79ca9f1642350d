"""Triton backend: one kernel for every plan, one launch and one small upload per call.

A program makes a few chunks of one output image, in the order in which the output is stored, so that stores are always
wide; `mosaicaug.backends.triton.chunks` says what a chunk is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime import driver
from triton.runtime.interpreter import InterpretedFunction

from mosaicaug.backends.request import Request
from mosaicaug.backends.triton.chunks import RESAMPLED, make_chunks
from mosaicaug.backends.triton.launch import SMALL, Launch, place_inputs, prepare
from mosaicaug.backends.triton.table import Table

OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}  # the reference rounds after every step, and so do we
TYPES = {torch.float32: tl.float32, torch.float64: tl.float64, torch.int32: tl.int32, torch.int64: tl.int64}


# Numbers that change from call to call and must not make the kernel compile anew when one of them is 1 or 16.
_ANY = ("overlay_at", "index_at", "window_at", "mean_at", "scale_at", "batch", "outputs")


@triton.jit
def _misses_box(
    boxes_ptr,
    HEIGHT: tl.constexpr,
    ROW: tl.constexpr,  # chunks of a row
    GROUPS: tl.constexpr,  # of planes, each made by programs of its own
    ROWS: tl.constexpr,
    CHUNKS: tl.constexpr,
):  # fmt: skip
    """True if none of this program's rows meets the box of its output image."""
    BLOCKS: tl.constexpr = ((HEIGHT + ROWS - 1) // ROWS * ROW + CHUNKS - 1) // CHUNKS  # programs of an image
    program = tl.program_id(0)
    box_ptr = boxes_ptr + 4 * (program // (BLOCKS * GROUPS))
    top = program % BLOCKS * CHUNKS // ROW * ROWS
    bottom = ((program % BLOCKS + 1) * CHUNKS - 1) // ROW * ROWS + ROWS
    return (top >= tl.load(box_ptr + 2)) | (bottom <= tl.load(box_ptr))


@triton.jit(do_not_specialize=_ANY)
def _apply_plan_kernel(
    images_ptr, out_ptr, table_ptr, index_ptr, window_ptr, mean_ptr, scale_ptr,
    overlay_at, index_at, window_at, mean_at, scale_at,  # first element of each behind its pointer
    stride_n, stride_t, stride_c, stride_y, stride_x,  # of the stored images, elements
    batch, outputs,  # images per plan, and of all plans
    HEIGHT: tl.constexpr,  # of the output, px
    WIDTH: tl.constexpr,  # of the output, px
    CHANNELS: tl.constexpr,  # C
    FRAMES: tl.constexpr,  # T of a video, 1 of images
    TILES: tl.constexpr,  # some tile is away from home
    GRID: tl.constexpr,  # tiles per side, or 0 where the plans differ in it
    PLANS: tl.constexpr,  # plans in the table, carried out on the same images
    OVERLAY: tl.constexpr,  # hardest overlay of the plans, see `Overlay`
    BLEND: tl.constexpr,  # some opacity is below 1
    INDEX: tl.constexpr,  # images are looked up through `index_ptr`
    WINDOW: tl.constexpr,  # images are cropped and flipped through `window_ptr`
    MEAN: tl.constexpr,  # a mean is subtracted
    SCALE: tl.constexpr,  # pixels are multiplied by a scale
    COMPUTE: tl.constexpr,  # dtype of arithmetic; None where there is none
    INNER: tl.constexpr,  # elements of a pixel that lie side by side in the output: 1, or C if channels_last
    CONTIGUOUS: tl.constexpr,  # a run of the output is a run of the source
    ALIGN: tl.constexpr,  # elements that every run of the source starts at a multiple of
    PACKED: tl.constexpr,  # elements are copied as 32-bit words, and chosen by masks of their bits
    OFFSET: tl.constexpr,  # int32, or int64 where a row of the source reaches further
    VEC: tl.constexpr,  # elements of a chunk
    PLANES: tl.constexpr,  # planes that a program makes
    ROWS: tl.constexpr,  # rows of a chunk
    CHUNKS: tl.constexpr,  # chunks that a program makes of each plane
):  # fmt: skip
    """Make ``CHUNKS`` chunks of ``PLANES`` planes of one output image, see `make_chunks`.

    Resampling costs much: programs whose rows miss the box leave it out.
    """
    if OVERLAY == RESAMPLED and _misses_box(
        table_ptr + overlay_at + 6 * outputs, HEIGHT, WIDTH * INNER // VEC, FRAMES * CHANNELS // INNER // PLANES, ROWS,
        CHUNKS,
    ):  # fmt: skip
        make_chunks(
            images_ptr, out_ptr, table_ptr, index_ptr, window_ptr, mean_ptr, scale_ptr,
            overlay_at, index_at, window_at, mean_at, scale_at, stride_n, stride_t, stride_c, stride_y, stride_x,
            batch, outputs, HEIGHT, WIDTH, CHANNELS, FRAMES, TILES, GRID, PLANS, 0, 0,
            INDEX, WINDOW, MEAN, SCALE, COMPUTE, INNER, CONTIGUOUS, ALIGN, PACKED, OFFSET, VEC, PLANES, ROWS,
            CHUNKS,
        )  # fmt: skip
    else:
        make_chunks(
            images_ptr, out_ptr, table_ptr, index_ptr, window_ptr, mean_ptr, scale_ptr,
            overlay_at, index_at, window_at, mean_at, scale_at, stride_n, stride_t, stride_c, stride_y, stride_x,
            batch, outputs, HEIGHT, WIDTH, CHANNELS, FRAMES, TILES, GRID, PLANS, OVERLAY, BLEND,
            INDEX, WINDOW, MEAN, SCALE, COMPUTE, INNER, CONTIGUOUS, ALIGN, PACKED, OFFSET, VEC, PLANES, ROWS,
            CHUNKS,
        )  # fmt: skip


def check_device(device: torch.device) -> None:
    """ValueError unless the kernel runs on ``device``: a GPU, or a CPU under Triton's interpreter."""
    if device.type != "cuda" and not (device.type == "cpu" and isinstance(_apply_plan_kernel, InterpretedFunction)):
        raise ValueError(
            f"apply: backend='triton' needs CUDA images, got {device.type}; move them with images.cuda(), use "
            "backend='torch', or set TRITON_INTERPRET=1 before Python starts to try the kernel on a CPU"
        )


def run(images: Tensor, table: Table, request: Request, out: Tensor | None) -> Tensor:
    """Carry out the plans of ``table`` on checked arguments, into ``out`` if one is passed.

    ``images`` are ``[N, *lead, C, H, W]`` on a GPU; ``out`` is ``[plans * B, *lead, C, H, W]``, contiguous or
    channels_last, and is returned, or else fresh memory.
    """
    if out is None:
        out = request.make_output((table.outputs, *images.shape[1:-2], *table.size), images.device)
    if out.numel() == 0:
        return out
    if images.is_cuda and images.device.index != driver.active.get_current_device():
        with torch.cuda.device(images.device):
            _launch(images, table, request, out)
    else:
        _launch(images, table, request, out)
    return out


# Compiled launches by all that they were compiled for and that does not change with the pixels' addresses. Finding the
# arguments and Triton's own launch take 35 us each, a launch that is kept 5.
_kept: dict[tuple[Any, ...], tuple[Callable[..., None], list[Any]]] = {}
MOST_KEPT = 512
_CHANGING = 12  # first parameters, which are given anew: pointers, and where in their memory the small tensors begin


def _launch(images: Tensor, table: Table, request: Request, out: Tensor) -> None:
    """Launch the kernel on the current device, with arguments that were found before if there are any."""
    small, begins = place_inputs(table, images.device, request)
    if isinstance(_apply_plan_kernel, InterpretedFunction):
        programs, arguments = _name_arguments(images, table, request, out, small, begins)
        _apply_plan_kernel[programs](**arguments, **OPTIONS)
        return
    # 1. The launch of an earlier call. Shape and memory of `out` follow from the plans and the images.
    pointers = [images.data_ptr(), out.data_ptr(), *(None if one is None else one.data_ptr() for one in small)]
    key = (
        *(images.device, images.dtype, images.shape, images.stride(), out.dtype, out.stride(), request.nearest),
        *table[1:],
        *(None if one is None else one.dtype for one in small),
        *(None if pointer is None else pointer % 16 for pointer in pointers),  # which loads and stores may be wide
    )
    kept = _kept.get(key)
    if kept is not None:
        launch, values = kept
        launch(*pointers, table.overlay_at, *begins[1:], *values)
        return
    # 2. Triton compiles a new one, or finds it on the disk, and launches it.
    programs, arguments = _name_arguments(images, table, request, out, small, begins)
    compiled = _apply_plan_kernel[programs](**arguments, **OPTIONS)
    if len(_kept) >= MOST_KEPT:
        _kept.clear()
    names = [parameter.name for parameter in _apply_plan_kernel.params]
    _kept[key] = compiled[(*programs, 1, 1)], [arguments[name] for name in names[_CHANGING:]]


def typed_arguments(images: Tensor, table: Table, request: Request, out: Tensor) -> Launch:
    """Number of programs to launch, and the kernel's arguments with Triton's types."""
    return _name_arguments(images, table, request, out, *place_inputs(table, images.device, request))


def _name_arguments(
    images: Tensor, table: Table, request: Request, out: Tensor, small: Sequence[Tensor | None], begins: Sequence[int]
) -> Launch:
    """`typed_arguments` of small tensors that were placed, and their first elements."""
    programs, arguments = prepare(images, table, request, out)
    arguments.update((name, TYPES[value]) for name, value in arguments.items() if isinstance(value, torch.dtype))
    arguments |= {f"{name}_ptr": tensor for name, tensor in zip(SMALL, small, strict=True)}
    return programs, arguments | {f"{name}_at": begin for name, begin in zip(SMALL[1:], begins[1:], strict=True)}
