"""The torch backend on a CPU without gradients: runs of pixels, not pixels, written where they belong.

A row of a tile is one run of memory, so a position is looked up once per run. The output is made block by block - some
whole images, or a band of rows of one - so that what a block needs beside the output is small and stays in the cache.
The arithmetic is that of the reference, step by step and bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mosaicaug.backends.cpu import tiles as cpu_base
from mosaicaug.backends.cpu.overlays import Overlays, store
from mosaicaug.backends.cpu.tiles import Base, Block, View
from mosaicaug.backends.request import Request
from mosaicaug.backends.resample import compute_dtype
from mosaicaug.plan import Plan


def run(images: Tensor, plan: Plan, request: Request, out: Tensor | None) -> Tensor:
    """Carry out ``plan`` on checked arguments, into ``out`` if one is passed."""
    if out is None:
        out = request.make_output((len(plan), *images.shape[1:-2], *plan.size), images.device)
    mean, scale = request.mean_and_scale(images.device)
    view = View(images, request.index, request.window, plan.size)
    work = compute_dtype(images)
    base, overlays = Base(view, plan), Overlays(view, plan, work, nearest=request.nearest)
    normalises = mean is not None or scale is not None
    stage = work if normalises or (out.dtype != images.dtype and overlays.calculate) else images.dtype
    staged = out.dtype != stage
    again = staged or normalises or overlays.blend  # blocks are read again, which is best done from the cache
    done = not staged and (base.write_rows(out) if base.reads else not again)
    if done and not base.reads:
        base.write((slice(0, len(out)), slice(0, out.shape[-2])), out)
    if done and not normalises and not any(overlays.laid):
        return out
    scratch = base.scratch_bytes(stage) * (not done) + overlays.scratch_bytes(stage) + staged * stage.itemsize
    mean, scale = (None if one is None else _spread(one, out) for one in (mean, scale))
    bands = (again or not done) and (staged or overlays.blend or not base.picks)
    for block in _blocks(out, scratch, bands=bands):
        target = out[block[0], ..., block[1], :]
        made = torch.empty_like(target, dtype=stage) if staged else target
        if not done:
            base.write(block, made)
        overlays.write(block, made)
        if mean is not None:
            made.sub_(mean)
        if scale is not None:
            made.mul_(scale)
        if staged:
            store(made, target)
    return out


def _spread(values: Tensor, out: Tensor) -> Tensor:
    """Per channel ``[C, 1, 1]`` to a row ``[C, 1, W]`` where channels lie side by side: loops over C are slow."""
    channels, width = values.shape[0], out.shape[-1]
    if out.stride(-3) != 1 or channels == 1:
        return values
    return values.view(channels).repeat(width, 1).t()[:, None]


def _blocks(out: Tensor, scratch: float, *, bands: bool) -> Iterator[Block]:
    """Blocks for so many bytes of scratch per element; without ``bands`` of one image at least."""
    batch, height = out.shape[0], out.shape[-2]
    share = cpu_base.SCRATCH / max(scratch * out[:1].numel(), 1)  # of an image
    images, rows = max(int(share), 1), max(int(share * height), 1) if bands and share < 1 else height
    for first in range(0, batch, images):
        for top in range(0, height, rows):
            yield slice(first, min(first + images, batch)), slice(top, min(top + rows, height))
