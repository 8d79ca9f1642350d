"""CPU backend (no gradients): a compiled kernel, or torch's operations on contiguous runs of pixels.

The kernel does what its dtypes allow, if it was compiled when the package was installed. Torch's operations do the
rest. A row of a tile is one run of memory, so a position is computed once per run. The output is made block by block
(some whole images, or a band of rows of one), so that the memory a block needs beside the output is small and stays in
the cache. Either way threads take units of work as they come free, and each has one thread's arithmetic: that of the
reference backend, step by step and bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mosaicaug.backends.cpu import compiled, tiles, workers
from mosaicaug.backends.cpu.overlays import Overlays, round_into
from mosaicaug.backends.cpu.tiles import Block, TiledBase, View
from mosaicaug.backends.request import Request
from mosaicaug.backends.resample import compute_dtype
from mosaicaug.plan import Plan


def run(images: Tensor, plan: Plan, request: Request, out: Tensor | None) -> Tensor:
    """Carry out ``plan`` on checked arguments, into ``out`` if one is passed.

    Args:
        images: ``[N, *lead, C, H, W]`` on the CPU.
        plan: for B images.
        request: the other arguments of `mosaicaug.apply`.
        out: ``[B, *lead, C, H, W]``, contiguous or channels_last.

    Returns:
        ``out``, or fresh memory.
    """
    fresh = out is None
    if out is None:
        out = request.make_output((len(plan), *images.shape[1:-2], *plan.size), images.device)
    if compiled.run(images, plan, request, out, fresh=fresh):
        return out
    mean, scale = request.mean_and_scale(images.device)
    view = View(images, request.index, request.window, plan.size)
    compute = compute_dtype(images)
    base, overlays = TiledBase(view, plan), Overlays(view, plan, compute, nearest=request.nearest)

    # 1. Choose the dtype that blocks are made in: the output's own, or another one that is rounded at the end.
    normalises = mean is not None or scale is not None
    stage = compute if normalises or (out.dtype != images.dtype and overlays.calculate) else images.dtype
    staged = out.dtype != stage
    rereads = staged or normalises or overlays.blend  # blocks are read again, which is fastest from the cache

    # 2. Write the base in one go where nothing has to be done to it afterwards, or where whole rows can be picked.
    written = not staged and (base.write_rows(out) if base.reads else not rereads)
    if written and not base.reads:
        base.write((slice(0, len(out)), slice(0, out.shape[-2])), out)
    if written and not normalises and not any(overlays.present):
        return out

    # 3. Block by block: base, overlays, normalisation, rounding.
    scratch = base.scratch_bytes(stage) * (not written) + overlays.scratch_bytes(stage) + staged * stage.itemsize
    mean, scale = (None if values is None else _spread(values, out) for values in (mean, scale))
    bands = (rereads or not written) and (staged or overlays.blend or not base.crops_first)

    def make(block: Block) -> None:
        target = out[block[0], ..., block[1], :]
        made = torch.empty_like(target, dtype=stage) if staged else target
        if not written:
            base.write(block, made)
        overlays.write(block, made)
        if mean is not None:
            made.sub_(mean)
        if scale is not None:
            made.mul_(scale)
        if staged:
            round_into(made, target)

    workers.share(make, list(_blocks(out, scratch, bands=bands)))
    return out


def _spread(values: Tensor, out: Tensor) -> Tensor:
    """Repeat ``[C, 1, 1]`` along a row, ``[C, 1, W]``, where channels lie side by side: loops over C are slow."""
    channels, width = values.shape[0], out.shape[-1]
    if out.stride(-3) != 1 or channels == 1:
        return values
    return values.view(channels).repeat(width, 1).t()[:, None]


def _blocks(out: Tensor, scratch: float, *, bands: bool) -> Iterator[Block]:
    """Blocks that need ``scratch`` bytes per element and stay in the cache; whole images unless ``bands``."""
    batch, height = out.shape[0], out.shape[-2]
    share = tiles.SCRATCH_BYTES / max(scratch * out[:1].numel(), 1)  # of an image
    images, rows = max(int(share), 1), max(int(share * height), 1) if bands and share < 1 else height
    for first in range(0, batch, images):
        for top in range(0, height, rows):
            yield slice(first, min(first + images, batch)), slice(top, min(top + rows, height))
