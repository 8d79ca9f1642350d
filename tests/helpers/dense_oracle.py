"""The oracle on whole arrays: what `tests.helpers.oracle` says pixel by pixel, fast enough for a million plans.

A plan comes as the bare numbers of its fields, and nothing of the package under test is imported here. A test compares
both oracles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

Fields = Mapping[str, Any]  # size, tiles, overlay, from_box, to_box and opacity, as lists or tensors


class Sources(NamedTuple):
    """The stored pixels that every output pixel is made of: the base, then up to four of the overlay.

    Attributes:
        weight: float64 ``[5, B, H, W]``, 0 where there is no such pixel.
        image: int64 ``[5, B, H, W]``, as ``y`` and ``x``.
        y: row in the stored image.
        x: column in the stored image.
        exact: bool ``[B, H, W]``, pixels that are copied: neither blended nor resampled.
    """

    weight: Tensor
    image: Tensor
    y: Tensor
    x: Tensor
    exact: Tensor

    def look_through(self, window: Tensor | None, index: Tensor | None, width: int) -> Sources:
        """The same pixels where the batch is a crop (and flip) of stored images."""
        y, x, image = self.y, self.x, self.image
        if window is not None:
            top, left, flip = window.long()[self.image].unbind(-1)
            y, x = y + top, torch.where(flip != 0, width - 1 - x, x) + left
        if index is not None:
            image = index.long()[self.image]
        return self._replace(y=y, x=x, image=image)

    def read(self, stored: Tensor) -> Tensor:
        """Every source pixel ``[5, B, *lead, H, W]`` of ``stored`` ``[N, *lead, h, w]``."""
        return stored[self.image, ..., self.y, self.x].movedim((2, 3), (-2, -1))

    def blend(self, stored: Tensor) -> Tensor:
        """The outputs before they are rounded, float64 ``[B, *lead, H, W]``."""
        shape = (5, len(self.exact), *(1,) * (stored.ndim - 3), *self.exact.shape[1:])
        weight = self.weight.view(shape)
        return torch.where(weight > 0, weight * self.read(stored.double()), 0).sum(0)

    def copy(self, stored: Tensor) -> Tensor:
        """The heaviest source pixel of each output pixel, with the very bits of ``stored``."""
        return self.pick(self.weight.argmax(0, keepdim=True)).read(stored)[0]

    def pick(self, tap: Tensor) -> Sources:
        """One source pixel, number ``tap`` ``[1, B, H, W]``, of each output pixel."""
        weight, image, y, x = (values.gather(0, tap) for values in self[:4])
        return Sources(weight, image, y, x, self.exact)

    def count_images(self, batch: int) -> Tensor:
        """Share of each output image that comes from each image, float64 ``[B, batch]``."""
        shares = torch.zeros(len(self.exact), batch, dtype=torch.float64)
        rows = self.weight.transpose(0, 1).flatten(1), self.image.transpose(0, 1).flatten(1)
        return shares.scatter_add(1, rows[1], rows[0]) / math.prod(self.exact.shape[1:])


def trace_sources(plan: Fields) -> Sources:
    """The pixels of the batch that every output pixel is made of."""
    # 1. The base: tiles, and a margin that stays.
    (height, width), tiles = plan["size"], torch.as_tensor(plan["tiles"]).long()
    tiles = tiles if tiles.ndim == 2 else tiles.view(0, 1)  # an empty list has lost its width
    batch, grid = len(tiles), math.isqrt(tiles.shape[1])
    entry = torch.arange(batch)[:, None, None].expand(batch, height, width)
    y = torch.arange(height)[:, None].expand(batch, height, width)
    x = torch.arange(width).expand(batch, height, width)
    tile_height, tile_width = height // grid, width // grid
    tiled = (y < grid * tile_height) & (x < grid * tile_width)
    place = (y // max(tile_height, 1) * grid + x // max(tile_width, 1)).clamp(max=grid**2 - 1)
    tile = tiles.gather(1, place.flatten(1)).view(batch, height, width)
    image = torch.where(tiled, tile // grid**2, entry)
    base_y = torch.where(tiled, tile // grid % grid * tile_height + y % max(tile_height, 1), y)
    base_x = torch.where(tiled, tile % grid * tile_width + x % max(tile_width, 1), x)

    # 2. The overlay: along each axis a near and a far pixel, in whole numbers.
    boxes = [torch.as_tensor(plan[name]).long().view(batch, 4, 1, 1) for name in ("from_box", "to_box")]
    (from_top, from_left, from_bottom, from_right), (top, left, bottom, right) = (box.unbind(1) for box in boxes)
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    opacity = torch.as_tensor(plan["opacity"]).double().view(batch, 1, 1)
    resampled = (bottom - top != from_bottom - from_top) | (right - left != from_right - from_left)
    rows = _list_taps(y - top, bottom - top, from_bottom - from_top)
    columns = _list_taps(x - left, right - left, from_right - from_left)
    partner = torch.as_tensor(plan["overlay"]).long().view(batch, 1, 1).expand(batch, height, width)
    weights, ys, xs = [torch.where(inside, 1 - opacity, 1.0)], [base_y], [base_x]
    for row, row_weight in rows:
        for column, column_weight in columns:
            weights.append(torch.where(inside, opacity * row_weight * column_weight, 0.0))
            # Where there is no overlay any pixel will do: it weighs nothing.
            ys.append(torch.where(inside, from_top + row, 0))
            xs.append(torch.where(inside, from_left + column, 0))
    exact = ~(inside & (resampled | (opacity < 1)))
    return Sources(torch.stack(weights), torch.stack([image, *[partner] * 4]), torch.stack(ys), torch.stack(xs), exact)


def _list_taps(offset: Tensor, length: Tensor, source_length: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Near and far source pixel of one axis and their weights, corners aligned."""
    steps = (length - 1).clamp(min=1)
    far_steps = torch.where(length > 1, (source_length - 1).clamp(min=0), 0)
    travelled = offset.clamp(min=0) * far_steps
    near, part = travelled // steps, (travelled % steps).double() / steps
    return [(near, 1 - part), (torch.where(part > 0, near + 1, near), part)]
