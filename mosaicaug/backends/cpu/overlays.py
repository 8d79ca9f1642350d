"""Overlays on a CPU: laid over a finished base, with arithmetic only for the pixels that they cover."""

from __future__ import annotations

import torch
from torch import Tensor

from mosaicaug.backends.cpu import tiles
from mosaicaug.backends.cpu.tiles import Block, View
from mosaicaug.backends.resample import Taps, bilinear_taps, nearest_tap
from mosaicaug.plan import Plan, arange


class Overlays:
    """Overlays of a plan: laid on one image after another, or on all images of a block at once if these are small.

    Args:
        view: the batch entries that overlays are cut from.
        plan: for the whole batch.
        compute: dtype of arithmetic.
        nearest: take the nearest pixel instead of interpolating.
    """

    def __init__(self, view: View, plan: Plan, compute: torch.dtype, *, nearest: bool) -> None:
        self.view, self.plan, self.compute, self.nearest = view, plan, compute, nearest
        present = plan.has_overlay
        self.present: list[bool] = present.tolist()
        self.in_place, self.blend, self.calculate = True, False, False
        if any(self.present):
            extents = [box[:, 2:] - box[:, :2] for box in (plan.from_box, plan.to_box)]
            self.resampled = (present & (extents[0] != extents[1]).any(1)).tolist()
            self.in_place = not (present & (plan.from_box != plan.to_box).any(1)).any()
            self.blend = bool((present & (plan.opacity < 1)).any())
            self.calculate = self.blend or (any(self.resampled) and not nearest)
            self.partners, self.opacity = plan.overlay.tolist(), plan.opacity.tolist()
            self.boxes, self.from_boxes = plan.to_box.tolist(), plan.from_box.tolist()

    def scratch_bytes(self, stage: torch.dtype) -> int:
        """Bytes beside the output that an element of a block takes if blocks are made in the dtype ``stage``."""
        if not any(self.present):
            return 0
        return (1 if stage == self.compute and self.blend else 2) * self.compute.itemsize

    def write(self, block: Block, into: Tensor) -> None:
        """Lay the overlays of the block over its base ``into``, ``[k, *lead, h, W]``."""
        images, rows = block
        members = [
            entry
            for entry in range(images.start, images.stop)
            if self.present[entry] and self.boxes[entry][0] < rows.stop and self.boxes[entry][2] > rows.start
        ]
        if len(members) > 1 and self.in_place and into.numel() * 2 * self.compute.itemsize <= tiles.SCRATCH_BYTES:
            self._lay_at_once(members, images.start, into)
            return
        for entry in members:
            self._lay_one(entry, rows, into[entry - images.start])

    def _lay_one(self, entry: int, rows: slice, into: Tensor) -> None:
        """Lay one overlay, or its band within ``rows``, over ``into`` ``[*lead, h, W]``."""
        # 1. The rows to lay, and how many at a time: a resampled overlay goes band by band, to stay in the cache.
        y0, x0, y1, x1 = self.boxes[entry]
        first, last = max(y0, rows.start), min(y1, rows.stop)
        step, taps = last - first, None
        if self.resampled[entry]:  # each of its rows takes several of the source
            taps = self._resampling_taps(entry)
            from_y0, from_x0, from_y1, from_x1 = self.from_boxes[entry]
            values = (4 + 2 * -(-(from_y1 - from_y0) // (y1 - y0))) * (from_x1 - from_x0) + 3 * (x1 - x0)
            step = max(tiles.SCRATCH_BYTES // (into[..., 0, 0].numel() * values * self.compute.itemsize), 1)
        # 2. Cut the overlay, blend it if it is not opaque, and write it over the base.
        for top in range(first, last, step):
            end = min(top + step, last)
            below = into[..., top - rows.start : end - rows.start, x0:x1]
            over = self._cut_rows(entry, top - y0, end - y0, taps)
            if self.opacity[entry] < 1:
                weight = self.plan.opacity[entry].to(self.compute)
                over = over.mul(weight) if over.dtype == self.compute else over.to(self.compute).mul_(weight)
                over = below.to(self.compute).mul_(1 - weight).add_(over)
            if over is not below:
                round_into(over, below)

    def _lay_at_once(self, members: list[int], first: int, into: Tensor) -> None:
        """Lay overlays that stay in place over several images at once, within the smallest box that holds them all."""
        # 1. Copy the smallest box that holds all overlays' boxes from every partner.
        entry = torch.tensor(members, device="cpu")
        boxes, opacity = self.plan.to_box[entry], self.plan.opacity[entry]
        (y0, x0), (y1, x1) = boxes[:, :2].amin(0).tolist(), boxes[:, 2:].amax(0).tolist()
        y, x = torch.arange(y0, y1, device="cpu")[:, None], torch.arange(x0, x1, device="cpu")
        over = into.new_empty((len(members), *into.shape[1:-2], y1 - y0, x1 - x0), dtype=self.view.images.dtype)
        partner = self.plan.overlay[entry].long()[:, None, None]
        offsets = self.view.run_offsets(partner, y, x0, x1 - x0)
        self.view.copy_runs(offsets, x1 - x0, over, self.view.is_mirrored(partner))
        # 2. Blend, and keep the base outside of each image's own box.
        rows = slice(None) if len(members) == len(into) else entry - first
        below, lead = into[rows, ..., y0:y1, x0:x1], (1,) * (into.ndim - 3)
        if bool((opacity < 1).any()):
            weight, over = opacity.to(self.compute).view(-1, *lead, 1, 1), over.to(self.compute)
            below = below.to(self.compute)
            over = torch.where(weight == 1, over, (1 - weight) * below + weight * over)
        if not bool((boxes == boxes[:1]).all()):
            top, left, bottom, right = boxes[:, :, None, None].unbind(1)
            inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
            over = torch.where(inside.view(-1, *lead, *inside.shape[1:]), over, below)
        into[rows, ..., y0:y1, x0:x1] = _round(over, into.dtype).to(into.dtype)

    def _cut_rows(self, entry: int, top: int, end: int, taps: tuple[Taps, Taps] | None) -> Tensor:
        """Rows ``top`` to ``end`` of an overlay, copied or, with ``taps``, resampled: ``[*lead, h, w]``."""
        y0, x0, _, x1 = self.from_boxes[entry]
        if taps is None:
            return self.view.crop(self.partners[entry], [y0 + top, x0, y0 + end, x1])
        (upper, lower, down), (left, right, across) = taps
        first, last = int(upper[top]), int(lower[end - 1]) + 1
        source = self.view.crop(self.partners[entry], [y0 + first, x0, y0 + last, x1])
        if self.nearest:
            y, x = (nearest_tap(*values) for values in taps)
            return source.index_select(-2, y[top:end] - first).index_select(-1, x)
        near, far = (source.index_select(-2, y[top:end] - first).to(self.compute) for y in (upper, lower))
        rows = near.mul_(1 - down[top:end, None]).add_(far.mul_(down[top:end, None]))
        del far
        near, far = (rows.index_select(-1, x) for x in (left, right))
        return near.mul_(1 - across).add_(far.mul_(across))

    def _resampling_taps(self, entry: int) -> tuple[Taps, Taps]:
        """Rows and columns of ``from_box`` that a resampled overlay is interpolated from."""
        (height, width), source = (
            (box[entry, 2:] - box[entry, :2]).unbind() for box in (self.plan.to_box, self.plan.from_box)
        )
        zero, precision = arange(1)[0], torch.float32 if self.nearest else self.compute
        rows, columns = (torch.arange(int(length), device="cpu") for length in (height, width))
        vertical = bilinear_taps(rows, zero, source[0], height, precision)
        return vertical, bilinear_taps(columns, zero, source[1], width, precision)


def round_into(values: Tensor, into: Tensor) -> None:
    """Write values, rounded once; to uint8 to the nearest, clamped."""
    into.copy_(_round(values, into.dtype))


def _round(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Round floating values to whole numbers of 0..255, in place, if ``dtype`` is uint8."""
    if dtype == torch.uint8 and values.is_floating_point():
        return values.round_().clamp_(0, 255)
    return values
