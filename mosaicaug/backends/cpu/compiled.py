"""Compiled kernel of the CPU backend: found beside its source, and run in as many threads as torch may use."""

from __future__ import annotations

import ctypes
import functools
import itertools
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mosaicaug.backends.cpu import workers
from mosaicaug.backends.request import Request
from mosaicaug.plan import Plan

SOURCE = Path(__file__).with_name("kernel.c")
LIBRARY = Path(__file__).with_name("kernel.native")  # not .so: it is no Python module
TYPES = {torch.uint8: 0, torch.bfloat16: 1, torch.float32: 2}  # that the kernel calculates with
COPIED = 3  # any other dtype
UNIT_BYTES = 2**19  # of the output that a thread makes at a time
SHARED_BYTES = 2**22  # of an output from which on helpers are worth waking: a thread fills it in about 1 ms
STAGED_BYTES = 2**21  # of an output from which on its rows are put together in the cache, and then written in order
STREAM_BYTES = 2**24  # of one from which on they are written past the cache, which needs the room for the images
STAGE_BYTES = 2**15  # of rows that are put together at a time
TOUCH_BYTES = 2**22  # of a plane up to which it is read in order before tiles are picked from it
HUGE_BYTES = 2**22  # of fresh memory from which on huge pages are asked for
WRONG = {1: "tiles", 2: "overlay", 3: "boxes", 4: "index", 5: "window"}  # what `check_job` finds
CALCULATES = 6

_FIELDS = """
stored stored_height stored_width batch height width planes channels pixel grid tile_height tile_width
in_image in_row in_column out_image out_row out_column in_type out_type in_bytes out_bytes nearest
unit_images unit_rows units touches stage_rows streams next done failed
*images *out *in_plane *out_plane *index *window *tiles *overlay *from_box *to_box *opacity *mean *scale
"""  # numbers of 64 bits, and addresses


class Job(ctypes.Structure):
    """Arguments of one call, as kernel.c lays them out."""

    _fields_ = [
        (name.removeprefix("*"), ctypes.c_void_p if name.startswith("*") else ctypes.c_int64)
        for name in _FIELDS.split()
    ]


@functools.cache
def load() -> ctypes.CDLL | None:
    """Compiled kernel; None without one of this very source."""
    return _load()[0]


@functools.cache
def describe() -> str:
    """Reason why there is no kernel; empty if there is one."""
    return _load()[1]


def _load() -> tuple[ctypes.CDLL | None, str]:
    if not LIBRARY.exists():
        return None, "it was not compiled, for want of a C compiler when the package was installed"
    try:
        library = ctypes.CDLL(str(LIBRARY))
        library.read_source.restype = library.measure_job.restype = library.check_job.restype = ctypes.c_int64
        library.advise_huge_pages.argtypes = [ctypes.c_void_p, ctypes.c_int64]
        same = library.read_source() == zlib.crc32(SOURCE.read_bytes())
        fits = library.measure_job() == ctypes.sizeof(Job)
    except (OSError, AttributeError) as error:
        return None, f"it does not load: {error}"
    if not (same and fits):
        return None, "it was compiled from another version of its source; install the package again"
    return library, ""


def run(images: Tensor, plan: Plan, request: Request, out: Tensor, *, fresh: bool) -> bool:
    """Carry out ``plan`` into ``out`` by the compiled kernel.

    Args:
        images: ``[N, *lead, C, H, W]`` on the CPU.
        plan: for B images.
        request: the other arguments of `mosaicaug.apply`.
        out: ``[B, *lead, C, H, W]``, contiguous or channels_last.
        fresh: True if nothing has been written to ``out`` yet.

    Returns:
        False, and nothing is written, if there is no kernel or it does not calculate with these dtypes.

    Raises:
        ValueError: the plan, index or window points outside the images: changed after it was checked, or unchecked.
    """
    library = load()
    if library is None or not out.numel() or not _can_calculate(images, request, out):
        return library is not None and not out.numel()
    job, kept = _make_job(images.resolve_neg(), plan, request, out, fresh=fresh)
    wrong = library.check_job(ctypes.byref(job))
    if wrong == CALCULATES:
        return False
    if wrong:
        raise ValueError(f"apply: {WRONG[wrong]} point outside the batch or the image; do not change a plan in place")
    if fresh and out.nbytes >= HUGE_BYTES:
        library.advise_huge_pages(out.data_ptr(), out.nbytes)
    elif not fresh and not out.is_inference():
        torch.autograd.graph.increment_version(out)
    _drain(library, job, out.nbytes, kept)
    return True


def _can_calculate(images: Tensor, request: Request, out: Tensor) -> bool:
    """False if dtypes differ or are normalised that the kernel only copies, or if memory has no address."""
    if images.itemsize not in (1, 2, 4, 8) or not images.data_ptr() or not out.data_ptr():
        return False
    return not _converts(images, request, out) or (images.dtype in TYPES and out.dtype in TYPES)


def _converts(images: Tensor, request: Request, out: Tensor) -> bool:
    """True if pixels become another dtype or are normalised."""
    return out.dtype != images.dtype or request.mean is not None or request.std is not None


def _make_job(images: Tensor, plan: Plan, request: Request, out: Tensor, *, fresh: bool) -> tuple[Job, Any]:
    """Arguments of the kernel, and what must live as long as they do."""
    # 1. Pixels: all channels of channels_last at once where both sides have it, else one plane after another.
    (batch, *lead, height, width), (in_step, out_step) = out.shape, (t.stride()[1:-2] for t in (images, out))
    channels, pixel = lead[-1], 1
    if channels > 1 and in_step[-1] == out_step[-1] == 1:
        pixel, lead, in_step, out_step = channels, lead[:-1], in_step[:-1], out_step[:-1]
    planes = [
        [sum(map(int.__mul__, place, steps)) for place in itertools.product(*map(range, lead))]
        for steps in (in_step, out_step)
    ]
    # 2. Tensors in the kernel's dtypes, without gaps.
    integers = [None if v is None else v.to("cpu", torch.int64).contiguous() for v in (request.index, request.window)]
    floats = [None if v is None else v.to("cpu", torch.float32).contiguous() for v in (request.mean, request.scale)]
    fields = [v.contiguous() for v in (plan.tiles, plan.overlay, plan.from_box, plan.to_box, plan.opacity)]
    offsets = [(ctypes.c_int64 * len(values))(*values) for values in planes]
    # 3. Units: whole images, or bands of large ones.
    image_bytes, grid = out.nbytes // batch, plan.grid
    unit_images, bands = max(UNIT_BYTES // image_bytes, 1), min(-(-image_bytes // UNIT_BYTES), height)
    stage_rows, touches = _choose_stage(images, grid, request, out, pixel)
    streams = not fresh and out.nbytes >= STREAM_BYTES  # the system has just put zeros of fresh memory into the cache
    bands = 1 if touches else bands
    unit_rows = -(-height // bands)
    units = -(-batch // unit_images) * -(-height // unit_rows)
    in_strides, out_strides = ((t.stride(0), t.stride(-2), t.stride(-1)) for t in (images, out))
    job = Job(
        *(images.shape[0], *images.shape[-2:], batch, height, width, len(planes[0]), channels, pixel),
        *(grid, height // grid, width // grid, *in_strides, *out_strides),
        *(TYPES.get(images.dtype, COPIED), TYPES.get(out.dtype, COPIED), images.itemsize, out.itemsize),
        *(request.nearest, unit_images, unit_rows, units, touches, stage_rows, streams, 0, 0, 0),
        *(images.data_ptr(), out.data_ptr(), *map(ctypes.addressof, offsets)),
        *(None if v is None else v.data_ptr() for v in (*integers, *fields, *floats)),
    )
    return job, (images, out, offsets, integers, fields, floats)


def _choose_stage(images: Tensor, grid: int, request: Request, out: Tensor, pixel: int) -> tuple[int, bool]:
    """Rows that are put together in the cache before they are written, or 0; and if images are read in order first.

    Where whole rows are copied, neither gains anything. Images are not read once for each of their bands.
    """
    batch, height, row = out.shape[0], out.shape[-2], out.shape[-1] * pixel
    pieces = grid > 1 or _converts(images, request, out)
    if not pieces or out.nbytes < STAGED_BYTES or (out.stride(-1), out.stride(-2)) != (pixel, row):
        return 0, False
    stage_rows, tile_height = max(STAGE_BYTES // (row * out.itemsize), 1), height // grid
    stage_rows -= stage_rows % tile_height if stage_rows > tile_height else 0
    in_order = images.stride(-1) == pixel and row <= images.stride(-2) <= 2 * row
    fits = images.stride(-2) * height * images.itemsize <= TOUCH_BYTES
    return stage_rows, grid > 1 and in_order and fits and batch >= 2 * torch.get_num_threads()


def _drain(library: ctypes.CDLL, job: Job, size: int, kept: Any) -> None:
    """Make all units, beside helpers where the output is large; ``kept`` lives until the last one has looked."""
    pointer = ctypes.byref(job)

    def work() -> None:
        library.drain_job(pointer)
        assert kept

    helpers = min(torch.get_num_threads(), job.units) - 1 if size >= SHARED_BYTES else 0
    started = workers.start(work, helpers) if helpers > 0 else []
    library.drain_job(pointer)
    # A helper that comes late finds nothing to do; only for units in other threads' hands one has to wait.
    if job.done < job.units:
        workers.finish(started)
    for future in started:
        future.cancel()
    if job.failed:
        raise MemoryError("apply: no memory for the rows of an image")
