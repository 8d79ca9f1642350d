"""Reference backend: plain torch on any device, differentiable, no loop over images or tiles.

Every stage computes positions: the batch entry, row and column that each output pixel shows. The crop, the flip and the
data set's index only translate positions; pixels move once, in `_View.look_up`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mosaicaug.backends.request import Request
from mosaicaug.backends.resample import Taps, bilinear_taps, compute_dtype, nearest_tap
from mosaicaug.checks import is_transformed
from mosaicaug.plan import Plan


@dataclass(frozen=True)
class _View:
    """Stored images seen through an index and windows: batch entries of the plan's size."""

    images: Tensor  # [N, *lead, height, width]
    index: Tensor | None  # [B]
    window: Tensor | None  # [B, 3]
    width: int

    def look_up(self, entry: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Pixels at int64 positions that broadcast to ``[B, H, W]``: ``[B, *lead, H, W]``."""
        if self.window is not None:
            top, left, flip = self.window.unbind(1)
            x = torch.where(flip[entry] != 0, self.width - 1 - x, x) + left[entry]
            y = y + top[entry]
        if self.index is not None:
            entry = self.index[entry]
        pixels = self.images[entry, ..., y, x]  # [B, H, W, *lead]
        return pixels.movedim((1, 2), (-2, -1))


def run(images: Tensor, plan: Plan, request: Request, out: Tensor | None) -> Tensor:
    """Carry out ``plan`` on checked arguments, into ``out`` if one is passed.

    Args:
        images: ``[N, *lead, C, H, W]`` on any device.
        plan: for B images.
        request: the other arguments of `mosaicaug.apply`.
        out: ``[B, *lead, C, H, W]``.

    Returns:
        ``out``, or fresh memory; never a view of ``images``.
    """
    device = images.device
    index, window = (None if value is None else _positions(value, device) for value in (request.index, request.window))
    view = _View(images, index, window, plan.size[1])
    compute, nearest = compute_dtype(images), request.nearest
    # 1. Pixels: the base, then overlays that are copied, then overlays that are resampled.
    result = _base(view, plan)
    for rows, resample in _overlay_groups(plan):
        if (resample and not nearest) or bool((plan.opacity[rows] < 1).any()):
            result = result.to(compute)
        result = _lay_over(result, view, plan, rows, resample=resample, nearest=nearest)
    # 2. Normalise, round once, and bring into the output's layout.
    mean, scale = request.mean_and_scale(device)
    if mean is not None:
        result = result.to(compute) - mean
    if scale is not None:
        result = result.to(compute) * scale
    if request.dtype == torch.uint8 and result.is_floating_point():
        result = result.round().clamp(0, 255)
    result = result.to(request.dtype)
    if out is not None:
        return out.copy_(result)
    last = request.channels_last
    result = result.movedim(-3, -1).contiguous().movedim(-1, -3) if last else result.contiguous()
    # Of what torch.func transforms no address is known.
    return result.clone() if is_transformed(result) or result.data_ptr() == images.data_ptr() else result


def _base(view: _View, plan: Plan) -> Tensor:
    """Tiled base of every output, ``[B, *lead, H, W]``."""
    device, (height, width), grid = view.images.device, plan.size, plan.grid
    entry = torch.arange(len(plan), device=device)[:, None, None]
    y, x = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    if not plan.moves_tiles:
        if view.window is None:
            return view.images if view.index is None else view.images.index_select(0, view.index)
        return view.look_up(entry, y, x)
    tile_height, tile_width = height // grid, width // grid
    tiles = _positions(plan.tiles, device).view(-1, grid, grid)
    shift_y = (tiles // grid % grid - torch.arange(grid, device=device)[:, None]) * tile_height
    shift_x = (tiles % grid - torch.arange(grid, device=device)) * tile_width
    source = torch.stack([tiles // (grid * grid) - entry, shift_y, shift_x])  # [3, B, G, G], relative to home
    # The margin is one more row and column of tiles, which never move.
    source = torch.nn.functional.pad(source, (0, 1, 0, 1))
    row, column = (y[:, 0] // tile_height).clamp(max=grid), (x // tile_width).clamp(max=grid)
    shift = source[:, :, row][..., column]  # [3, B, H, W]
    return view.look_up(entry + shift[0], y + shift[1], x + shift[2])


def _overlay_groups(plan: Plan) -> list[tuple[Tensor, bool]]:
    """Images with an overlay, int64 rows on the CPU: those that copy it (False), and those that resample it (True)."""
    extents = [box[:, 2:] - box[:, :2] for box in (plan.from_box, plan.to_box)]
    resample = (extents[0] != extents[1]).any(1)
    groups = [(plan.has_overlay & ~resample, False), (plan.has_overlay & resample, True)]
    return [(mask.nonzero()[:, 0], kind) for mask, kind in groups if mask.any()]


def _lay_over(base: Tensor, view: _View, plan: Plan, rows: Tensor, *, resample: bool, nearest: bool) -> Tensor:
    """Lay the overlays of ``rows`` over ``base``: a new tensor, as autograd wants it."""
    # 1. The pixels of each output that its overlay covers.
    device, (height, width) = base.device, plan.size
    y0, x0, y1, x1 = _positions(plan.from_box[rows, :, None, None], device).unbind(1)  # [R, 1, 1] each
    to_y0, to_x0, to_y1, to_x1 = _positions(plan.to_box[rows, :, None, None], device).unbind(1)
    y, x = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    inside = (y >= to_y0) & (y < to_y1) & (x >= to_x0) & (x < to_x1)  # [R, H, W]
    # 2. The overlay at every output pixel: copied, or resampled from a box of another size.
    entry = _positions(plan.overlay[rows, None, None], device)
    if resample:
        precision = torch.float32 if nearest else base.dtype
        vertical = bilinear_taps(y - to_y0, y0, y1, to_y1 - to_y0, precision)
        horizontal = bilinear_taps(x - to_x0, x0, x1, to_x1 - to_x0, precision)
        if nearest:
            overlay = view.look_up(entry, nearest_tap(*vertical), nearest_tap(*horizontal))
        else:
            overlay = _bilinear(view, entry, vertical, horizontal)
    else:
        # Outside the box any legal position will do: `inside` hides it.
        from_y = (y - to_y0 + y0).clamp(0, height - 1)
        from_x = (x - to_x0 + x0).clamp(0, width - 1)
        overlay = view.look_up(entry, from_y, from_x).to(base.dtype)
    # 3. Blend where it is not opaque, and write it over the base.
    lead = (1,) * (base.ndim - 3)
    where = _positions(rows, device)
    below, opacity = base[where], plan.opacity[rows]
    if bool((opacity < 1).any()):
        weight = _as_ordinary(opacity.to(device, base.dtype, non_blocking=True)).view(-1, *lead, 1, 1)
        overlay = torch.where(weight == 1, overlay, (1 - weight) * below + weight * overlay)
    return base.index_copy(0, where, torch.where(inside.view(-1, *lead, height, width), overlay, below))


def _bilinear(view: _View, entry: Tensor, vertical: Taps, horizontal: Taps) -> Tensor:
    """Weighted sum of four source pixels for every output pixel, in the precision of the weights."""
    (top, bottom, down), (left, right, across) = vertical, horizontal
    lead = (1,) * (view.images.ndim - 3)
    down, across = (weight.view(len(weight), *lead, *weight.shape[1:]) for weight in (down, across))

    def along(x: Tensor) -> Tensor:
        near, far = (view.look_up(entry, y, x).to(down.dtype) for y in (top, bottom))
        return (1 - down) * near + down * far

    return (1 - across) * along(left) + across * along(right)


def _positions(values: Tensor, device: torch.device) -> Tensor:
    """Positions as int64, the type that torch indexes with, on ``device``."""
    return _as_ordinary(values.to(device, torch.int64, non_blocking=True))


def _as_ordinary(values: Tensor) -> Tensor:
    """Values that autograd may keep, where they were made in inference mode."""
    return values.clone() if values.is_inference() and not torch.is_inference_mode_enabled() else values
