"""The torch backend on a CPU without gradients: runs of pixels, not pixels, written where they belong.

A row of a tile is one run of memory, so a position is looked up once per run. The output is made block by block - some
whole images, or a band of rows of one - so that what a block needs beside the output is small and stays in the cache.
The arithmetic is that of the reference, step by step and bit for bit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from mosaicaug.backends.torch import find_taps
from mosaicaug.plan import Plan

SCRATCH = 3 * 2**18  # bytes that a block may take beside the output, by a rough count
STAGE = 5 * 2**20  # bytes of images that the cache holds while rows are picked from them

Block = tuple[slice, slice]  # images, rows


def run(
    images: Tensor,
    plan: Plan,
    *,
    window: Tensor | None,
    index: Tensor | None,
    mean: Tensor | None,
    scale: Tensor | None,
    out: Tensor,
) -> Tensor:
    """Carry out ``plan`` into ``out``; arguments as `mosaicaug.apply`, already checked, with ``scale`` for 1 / std."""
    view = _View(images, index, window, plan.size)
    work = torch.float64 if images.dtype == torch.float64 else torch.float32
    base, overlays = _Base(view, plan), _Overlays(view, plan, work)
    normalises = mean is not None or scale is not None
    stage = work if normalises or (out.dtype != images.dtype and overlays.calculate) else images.dtype
    staged = out.dtype != stage
    done = base.reads and not staged and base.write_rows(out)
    scratch = base.scratch_bytes(stage) * (not done) + overlays.scratch_bytes(stage) + staged * stage.itemsize
    # Whole images do where a block is written once: nothing of it is worth keeping in the cache.
    bands = staged or normalises or overlays.blend or (base.reads and not done)
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
            _store(made, target)
    return out


def _store(values: Tensor, into: Tensor) -> None:
    """Rounded once, to uint8 to the nearest."""
    if into.dtype == torch.uint8 and values.is_floating_point():
        values = values.round_().clamp_(0, 255)
    into.copy_(values)


def _blocks(out: Tensor, scratch: float, *, bands: bool = True) -> Iterator[Block]:
    """Blocks for so many bytes of scratch per element; without ``bands`` of one image at least."""
    batch, height = out.shape[0], out.shape[-2]
    share = SCRATCH / max(scratch * out[:1].numel(), 1)  # of an image
    images, rows = max(int(share), 1), max(int(share * height), 1) if bands and share < 1 else height
    for first in range(0, batch, images):
        for top in range(0, height, rows):
            yield slice(first, min(first + images, batch)), slice(top, min(top + rows, height))


class _View:
    """What the plan sees: stored images ``[N, *lead, height, width]`` through an index and windows."""

    def __init__(self, images: Tensor, index: Tensor | None, window: Tensor | None, size: tuple[int, int]) -> None:
        self.images, self.size = images, size
        self.index, self.window = (None if v is None else v.to("cpu", torch.int64) for v in (index, window))
        self.mirrors = self.window is not None and bool(self.window[:, 2].any())

    def find(self, entry: Tensor, y: Tensor, x: Tensor | int, run: int) -> Tensor:
        """Where, counted in elements, the ``run`` pixels lie that ``entry`` shows from ``y, x`` on."""
        if self.window is not None:
            top, left, flip = self.window[entry].unbind(-1)
            x = left + (torch.where(flip != 0, self.size[1] - run - x, x) if self.mirrors else x)
            y = y + top
        stored = entry if self.index is None else self.index[entry]
        strides = self.images.stride()
        return stored * strides[0] + y * strides[-2] + x * strides[-1]

    def is_mirrored(self, entry: Tensor) -> Tensor | None:
        """Whether ``entry`` is shown mirrored; None where nothing is."""
        return self.window[entry, 2] != 0 if self.window is not None and self.mirrors else None

    def read(self, begin: Tensor, run: int, into: Tensor, mirrored: Tensor | None) -> None:
        """Copy the runs at ``begin`` ``[k, h, g]`` into ``[k, *lead, h, g * run]``, turned where ``mirrored``."""
        into = into.view(*into.shape[:-1], -1, run)
        shape = (*self.images.shape[1:-2], run)
        strides = (*self.images.stride()[1:-2], self.images.stride(-1))
        stored = self.images.untyped_storage().nbytes() // self.images.element_size()
        reach = sum((length - 1) * step for length, step in zip(shape, strides, strict=True))
        places = stored - self.images.storage_offset() - reach
        runs = self.images.as_strided((places, *shape), (1, *strides))  # one from every element on
        torch.ops.aten.index.Tensor_out(runs, [begin], out=into.movedim((-3, -2), (1, 2)))
        if mirrored is not None and mirrored.any():
            where = mirrored.view(len(mirrored), *(1,) * (into.ndim - 4), *mirrored.shape[1:], 1)
            into.copy_(torch.where(where, into.flip(-1), into))

    def crop(self, entry: int, box: list[int]) -> Tensor:
        """What ``entry`` shows in ``box``, ``[*lead, h, w]``; shares memory unless mirrored."""
        y0, x0, y1, x1 = box
        stored = self.images[entry if self.index is None else int(self.index[entry])]
        if self.window is None:
            return stored[..., y0:y1, x0:x1]
        top, left, flip = self.window[entry].tolist()
        if not flip:
            return stored[..., top + y0 : top + y1, left + x0 : left + x1]
        end = left + self.size[1]
        return stored[..., top + y0 : top + y1, end - x1 : end - x0].flip(-1)


class _Base:
    """The tiled base."""

    def __init__(self, view: _View, plan: Plan) -> None:
        self.view, moves = view, plan.moves_tiles
        self.reads = moves or view.window is not None
        self.grid = grid = plan.grid if moves else 1
        self.tile = plan.size[0] // grid, plan.size[1] // grid
        if self.reads:
            tiles = plan.tiles.long() if moves else torch.arange(len(plan))[:, None]
            self.tiles = tiles.view(-1, grid, grid)

    @functools.cached_property
    def begin(self) -> Tensor:
        """Where each tile's source begins, int64 ``[B, G, G]``."""
        grid, (height, width) = self.grid, self.tile
        y, x = self.tiles // grid % grid * height, self.tiles % grid * width
        return self.view.find(self.tiles // grid**2, y, x, width)

    @functools.cached_property
    def mirrored(self) -> Tensor | None:
        """Which tiles are mirrored, bool ``[B, G, G]``."""
        return self.view.is_mirrored(self.tiles // self.grid**2)

    @property
    def position_bytes(self) -> float:
        """Per element of the output."""
        return 10 / self.tile[1] if self.reads else 0

    def scratch_bytes(self, stage: torch.dtype) -> float:
        """Per element of a block that is made in ``stage``."""
        size = self.view.images.element_size()
        converts = self.reads and self.view.images.dtype != stage
        return self.position_bytes + (converts + 2 * self.view.mirrors) * size

    def write(self, block: Block, into: Tensor) -> None:
        """Fill ``into`` ``[k, *lead, h, W]`` with the base of the block."""
        view, (images, rows) = self.view, block
        if not self.reads:
            stored = view.images[..., rows, :]
            into.copy_(stored[images] if view.index is None else stored.index_select(0, view.index[images]))
        elif into.dtype != view.images.dtype:
            scratch = torch.empty_like(into, dtype=view.images.dtype)
            self.write(block, scratch)
            into.copy_(scratch)
        else:
            (height, width), tiled = self.tile, max(rows.start, min(rows.stop, self.grid * self.tile[0]))
            y = torch.arange(rows.start, tiled)
            if len(y):
                row = y // height
                begin = self.begin[images][:, row].add_((y % height * view.images.stride(-2))[:, None])
                mirrored = None if self.mirrored is None else self.mirrored[images][:, row]
                view.read(begin, width, into[..., : len(y), : self.grid * width], mirrored)
                self._keep(images, rows.start, into[..., : len(y), self.grid * width :])
            self._keep(images, tiled, into[..., len(y) :, :])

    def write_rows(self, out: Tensor) -> bool:
        """Fill the whole output if memory is nothing but rows of tiles, which `index_select` copies as wholes.

        Rows are picked from a fresh copy of their images, which the cache still holds. That copy is put where the last
        images of the output go, which are made last. False, and nothing is done, if memory is not like that.
        """
        images, index, grid, (height, width) = self.view.images, self.view.index, self.grid, self.tile
        if self.view.window is not None or out.dtype != images.dtype or self.view.size != (grid * height, grid * width):
            return False
        if not (images.is_contiguous() and out.is_contiguous()):
            images, out = images.movedim(1, -1), out.movedim(1, -1)
            if images.ndim != 4 or not (images.is_contiguous() and out.is_contiguous()):
                return False
            width *= images.shape[-1]
        count, size = out[:1].numel() // width, out[:1].numel() * out.element_size()  # of an image: rows, bytes
        block = min(max(STAGE // max(size, 1), 1), SCRATCH // (8 * count), len(out))
        if block == 0 or count * len(images) >= 2**31:
            return False
        tile = self.tiles.int().view(-1, 1, grid, 1, grid)
        entry, place = tile // grid**2, tile // grid % grid * (height * grid) + tile % grid
        stored = entry if index is None else index[entry].int()
        moves_within = bool((entry == torch.arange(len(out)).view(-1, 1, 1, 1, 1)).all())
        planes = torch.arange(count // (grid**2 * height), dtype=torch.int32).view(-1, 1, 1, 1) * (grid**2 * height)
        within = planes + torch.arange(height, dtype=torch.int32)[:, None] * grid
        position = torch.arange(block, dtype=torch.int32).view(-1, 1, 1, 1, 1) * count
        stage, spare = out[-block:], len(out) - block
        for first in range(0, len(out), block):
            last = min(first + block, len(out))
            if moves_within and last <= spare:
                some = images[first:last] if index is None else images.index_select(0, index[first:last])
                source, begin = stage.copy_(some), position
            else:
                source, begin = images, stored[first:last] * count
            rows = (place[first:last] + begin) + within
            torch.index_select(source.view(-1, width), 0, rows.flatten(), out=out[first:last].view(-1, width))
        return True

    def _keep(self, images: slice, top: int, margin: Tensor) -> None:
        """Fill rows of the margin, from ``top`` on and up to the right edge."""
        if margin.numel():
            height, width = margin.shape[-2:]
            entry, y = torch.arange(images.start, images.stop)[:, None, None], torch.arange(top, top + height)[:, None]
            begin = self.view.find(entry, y, self.view.size[1] - width, width)
            self.view.read(begin, width, margin, self.view.is_mirrored(entry))


class _Overlays:
    """Overlays: laid on one image after another, or on all images of a block at once where images are small."""

    def __init__(self, view: _View, plan: Plan, work: torch.dtype) -> None:
        self.view, self.plan, self.work, laid = view, plan, work, plan.has_overlay
        extents = [box[:, 2:] - box[:, :2] for box in (plan.from_box, plan.to_box)]
        resampled = laid & (extents[0] != extents[1]).any(1)
        self.laid, self.resampled = laid.tolist(), resampled.tolist()
        self.in_place = not (laid & (plan.from_box != plan.to_box).any(1)).any()
        self.blend = bool((laid & (plan.opacity < 1)).any())
        self.calculate = self.blend or any(self.resampled)
        self.partners, self.boxes = plan.overlay.tolist(), plan.to_box.tolist()

    def scratch_bytes(self, stage: torch.dtype) -> int:
        """Per element of a block that is made in ``stage``."""
        if not any(self.laid):
            return 0
        return (1 if stage == self.work and self.blend else 2) * self.work.itemsize

    def write(self, block: Block, into: Tensor) -> None:
        """Lay the overlays of the block over ``into`` ``[k, *lead, h, W]``."""
        images, rows = block
        members = [
            entry
            for entry in range(images.start, images.stop)
            if self.laid[entry] and self.boxes[entry][0] < rows.stop and self.boxes[entry][2] > rows.start
        ]
        if len(members) > 1 and self.in_place and into.numel() * 2 * self.work.itemsize <= SCRATCH:
            self._lay_at_once(members, images.start, into)
            return
        for entry in members:
            self._lay(entry, rows, into[entry - images.start])

    def _lay(self, entry: int, rows: slice, into: Tensor) -> None:
        """One overlay, or the band of it that falls into ``rows``, over ``[*lead, h, W]``."""
        y0, x0, y1, x1 = self.boxes[entry]
        first, last = max(y0, rows.start), min(y1, rows.stop)
        step = last - first
        if self.resampled[entry]:  # in bands: many values are needed for each that is made
            step = max(SCRATCH // (14 * self.work.itemsize * into[..., 0, x0:x1].numel()), 1)
        for top in range(first, last, step):
            end = min(top + step, last)
            below = into[..., top - rows.start : end - rows.start, x0:x1]
            over = self._stretch(entry, top, end) if self.resampled[entry] else self._cut(entry, top, end)
            opacity = self.plan.opacity[entry].to(self.work)
            if opacity < 1:
                over = below.to(self.work).mul_(1 - opacity).add_(over.to(self.work).mul(opacity))
            if over is not below:
                _store(over, below)

    def _lay_at_once(self, members: list[int], first: int, into: Tensor) -> None:
        """Overlays at their own place over several whole images: all within the smallest box round their boxes."""
        entry = torch.tensor(members)
        boxes, opacity = self.plan.to_box[entry], self.plan.opacity[entry]
        (y0, x0), (y1, x1) = boxes[:, :2].amin(0).tolist(), boxes[:, 2:].amax(0).tolist()
        y, x = torch.arange(y0, y1)[:, None], torch.arange(x0, x1)
        over = into.new_empty((len(members), *into.shape[1:-2], y1 - y0, x1 - x0), dtype=self.view.images.dtype)
        partner = self.plan.overlay[entry].long()[:, None, None]
        begin = self.view.find(partner, y, x0, x1 - x0)
        self.view.read(begin, x1 - x0, over, self.view.is_mirrored(partner))
        place = slice(None) if len(members) == len(into) else entry - first
        below, lead = into[place, ..., y0:y1, x0:x1], (1,) * (into.ndim - 3)
        if bool((opacity < 1).any()):
            weight, over = opacity.to(self.work).view(-1, *lead, 1, 1), over.to(self.work)
            below = below.to(self.work)
            over = torch.where(weight == 1, over, (1 - weight) * below + weight * over)
        if not bool((boxes == boxes[:1]).all()):
            top, left, bottom, right = boxes[:, :, None, None].unbind(1)
            inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
            over = torch.where(inside.view(-1, *lead, *inside.shape[1:]), over, below)
        if into.dtype == torch.uint8 and over.is_floating_point():
            over = over.round_().clamp_(0, 255)
        into[place, ..., y0:y1, x0:x1] = over.to(into.dtype)

    def _cut(self, entry: int, top: int, end: int) -> Tensor:
        """What a copied overlay shows in rows ``top`` to ``end`` of the output: ``[*lead, h, w]``."""
        y0, x0, _, x1 = self.boxes[entry]
        from_y, from_x = self.plan.from_box[entry, :2].tolist()
        box = [from_y + top - y0, from_x, from_y + end - y0, from_x + x1 - x0]
        return self.view.crop(self.partners[entry], box)

    def _stretch(self, entry: int, top: int, end: int) -> Tensor:
        """The same of a resampled overlay."""
        (y0, x0, y1, x1), (to_y0, to_x0, to_y1, to_x1) = (
            box[entry].unbind() for box in (self.plan.from_box, self.plan.to_box)
        )
        upper, lower, down = find_taps(torch.arange(top, end) - to_y0, y0, y1, to_y1 - to_y0, self.work)
        left, right, across = find_taps(torch.arange(int(to_x1 - to_x0)), x0, x1, to_x1 - to_x0, self.work)
        first, last = int(upper[0]), int(lower[-1]) + 1
        source = self.view.crop(self.partners[entry], [first, int(x0), last, int(x1)])
        left, right = left - x0, right - x0

        def along(y: Tensor) -> Tensor:
            rows = source.index_select(-2, y - first).to(self.work)
            near, far = (rows.index_select(-1, x) for x in (left, right))
            return near.mul_(1 - across).add_(far.mul_(across))

        return along(upper).mul_(1 - down[:, None]).add_(along(lower).mul_(down[:, None]))
