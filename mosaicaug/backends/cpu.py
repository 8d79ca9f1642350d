"""The torch backend on a CPU without gradients: runs of pixels, not pixels, written where they belong.

A row of a tile is one run of memory, so a position is looked up once per run. The output is made block by block - some
whole images, or a band of rows of one - so that what a block needs beside the output is small and stays in the cache.
The arithmetic is that of the reference, step by step and bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from mosaicaug.backends.torch import find_taps
from mosaicaug.plan import Plan

SCRATCH = 3 * 2**18  # bytes that a block may take beside the output, by a rough count

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
    base, overlays = _Base(view, plan), _Overlays(view, plan)
    work = torch.float64 if images.dtype == torch.float64 else torch.float32
    stage = work if mean is not None or scale is not None or overlays.calculate else images.dtype
    if stage == out.dtype == images.dtype and window is None and not overlays.calculate:
        for block in _blocks(out, base.position_bytes, bands=False):
            base.write(block, out[block[0]])
        for block in _blocks(out, 2 * stage.itemsize, bands=False):
            overlays.write(block, out[block[0]])
        return _normalise(out, mean, scale)
    staged = out.dtype != stage
    for block in _blocks(out, base.scratch_bytes(stage) + overlays.scratch_bytes(stage) + staged * stage.itemsize):
        target = out[block[0], ..., block[1], :]
        made = torch.empty_like(target, dtype=stage) if staged else target
        base.write(block, made)
        overlays.write(block, made)
        _normalise(made, mean, scale)
        if staged:
            if out.dtype == torch.uint8 and stage.is_floating_point:
                made.round_().clamp_(0, 255)
            target.copy_(made)
    return out


def _normalise(values: Tensor, mean: Tensor | None, scale: Tensor | None) -> Tensor:
    if mean is not None:
        values.sub_(mean)
    return values if scale is None else values.mul_(scale)


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

    def read(self, begin: Tensor, run: int, into: Tensor, mirrored: Tensor | None, *, tiled: bool = False) -> None:
        """Copy the runs at ``begin`` ``[k, h, g]`` into ``[k, *lead, h, g * run]``, turned where ``mirrored``.

        ``tiled`` runs begin at multiples of their length, counted from the left edge of what is shown.
        """
        into = into.view(*into.shape[:-1], -1, run)
        if not tiled or not self._read_whole(begin, run, into):
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

    def _read_whole(self, begin: Tensor, run: int, into: Tensor) -> bool:
        """The same where memory is nothing but runs, here and there: `index_select` copies each as a whole."""
        images, planes = self.images, math.prod(self.images.shape[1:-2])
        if self.window is not None or images.shape[-1] % run or images.numel() >= 2**31:
            return False
        if not (images.is_contiguous() and into.is_contiguous()):
            images, into = images.movedim(1, -1), into.movedim(1, -1)
            if images.ndim != 4 or not (images.is_contiguous() and into.is_contiguous()):
                return False
            run, planes = run * images.shape[-1], 1
        place = torch.div(begin, run, rounding_mode="floor").int()[:, None]  # [k, 1, h, g]
        if planes > 1:
            step = images.shape[-2] * images.shape[-1] // run
            place = place + (torch.arange(planes, dtype=torch.int32) * step)[:, None, None]
        torch.index_select(images.view(-1, run), 0, place.flatten(), out=into.view(-1, run))
        return True

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
            tiles = tiles.view(-1, grid, grid)
            entry, y, x = tiles // grid**2, tiles // grid % grid * self.tile[0], tiles % grid * self.tile[1]
            self.begin, self.mirrored = view.find(entry, y, x, self.tile[1]), view.is_mirrored(entry)  # [B, G, G]

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
                view.read(begin, width, into[..., : len(y), : self.grid * width], mirrored, tiled=True)
                self._keep(images, rows.start, into[..., : len(y), self.grid * width :])
            self._keep(images, tiled, into[..., len(y) :, :])

    def _keep(self, images: slice, top: int, margin: Tensor) -> None:
        """Fill rows of the margin, from ``top`` on and up to the right edge."""
        if margin.numel():
            height, width = margin.shape[-2:]
            entry, y = torch.arange(images.start, images.stop)[:, None, None], torch.arange(top, top + height)[:, None]
            begin = self.view.find(entry, y, self.view.size[1] - width, width)
            self.view.read(begin, width, margin, self.view.is_mirrored(entry))


class _Overlays:
    """Overlays, laid on one image after another; those at their own place on all images of a block at once."""

    def __init__(self, view: _View, plan: Plan) -> None:
        self.view, self.plan, laid = view, plan, plan.has_overlay
        extents = [box[:, 2:] - box[:, :2] for box in (plan.from_box, plan.to_box)]
        resampled = laid & (extents[0] != extents[1]).any(1)
        apart = laid & (plan.from_box != plan.to_box).any(1)
        self.laid, self.resampled, self.apart = laid.tolist(), resampled.tolist(), apart.tolist()
        self.resample, self.calculate = any(self.resampled), bool((resampled | laid & (plan.opacity < 1)).any())
        self.partners, self.boxes = plan.overlay.tolist(), plan.to_box.tolist()

    def scratch_bytes(self, stage: torch.dtype) -> float:
        """Per element of a block that is made in ``stage``."""
        if not any(self.laid):
            return 0
        return (12 if self.resample else 2) * stage.itemsize

    def write(self, block: Block, into: Tensor) -> None:
        """Lay the overlays of the block over ``into`` ``[k, *lead, h, W]``."""
        images, rows = block
        members = [
            entry
            for entry in range(images.start, images.stop)
            if self.laid[entry] and self.boxes[entry][0] < rows.stop and self.boxes[entry][2] > rows.start
        ]
        if len(members) > 1 and not any(self.apart[entry] for entry in members):
            self._lay_at_once(members, images.start, into)
            return
        for entry in members:
            self._lay(entry, rows, into[entry - images.start])

    def _lay(self, entry: int, rows: slice, into: Tensor) -> None:
        """One overlay, or the band of it that falls into ``rows``, over ``[*lead, h, W]``."""
        y0, x0, y1, x1 = self.boxes[entry]
        top, end = max(y0, rows.start), min(y1, rows.stop)
        below = into[..., top - rows.start : end - rows.start, x0:x1]
        if self.resampled[entry]:
            over = self._stretch(entry, top, end, below.dtype)
        else:
            from_y, from_x = self.plan.from_box[entry, :2].tolist()
            box = [from_y + top - y0, from_x, from_y + end - y0, from_x + x1 - x0]
            over = self.view.crop(self.partners[entry], box)
        opacity = self.plan.opacity[entry].to(below.dtype)
        if opacity < 1:
            below.mul_(1 - opacity).add_(over.to(below.dtype).mul(opacity))
        else:
            below.copy_(over)

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
        over = over.to(into.dtype)
        if bool((opacity < 1).any()):
            weight = opacity.to(into.dtype).view(-1, *lead, 1, 1)
            over = torch.where(weight == 1, over, (1 - weight) * below + weight * over)
        if not bool((boxes == boxes[:1]).all()):
            top, left, bottom, right = boxes[:, :, None, None].unbind(1)
            inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
            over = torch.where(inside.view(-1, *lead, *inside.shape[1:]), over, below)
        into[place, ..., y0:y1, x0:x1] = over

    def _stretch(self, entry: int, top: int, end: int, work: torch.dtype) -> Tensor:
        """Rows ``top`` to ``end`` of the output under a resampled overlay: ``[*lead, h, w]``."""
        from_box, to_box = self.plan.from_box[entry], self.plan.to_box[entry]
        (y0, x0, y1, x1), (to_y0, to_x0, to_y1, to_x1) = from_box.unbind(), to_box.unbind()
        upper, lower, down = find_taps(torch.arange(top, end) - to_y0, y0, y1, to_y1 - to_y0, work)
        left, right, across = find_taps(torch.arange(int(to_x1 - to_x0)), x0, x1, to_x1 - to_x0, work)
        first, last = int(upper[0]), int(lower[-1]) + 1
        source = self.view.crop(self.partners[entry], [first, int(x0), last, int(x1)])
        left, right = left - x0, right - x0

        def along(y: Tensor) -> Tensor:
            rows = source.index_select(-2, y - first)
            near, far = (rows[..., x].to(work) for x in (left, right))
            return (1 - across) * near + across * far

        return (1 - down[:, None]) * along(upper) + down[:, None] * along(lower)
