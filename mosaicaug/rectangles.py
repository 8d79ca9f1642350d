"""Plans as rectangles: the parts of the outputs that come from one rectangle of the inputs each.

Masks follow a plan pixel by pixel; boxes and keypoints follow it rectangle by rectangle. Boxes here are
``x0, y0, x1, y1`` in px, half open.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mosaicaug.plan import Plan, arange

Candidates = tuple[Tensor, Tensor, Tensor]  # values [B, N, R, ...], source [B, N, R] and score [B, N, R]


class Regions(NamedTuple):
    """R rectangles of each output, each from one rectangle of an input.

    Attributes:
        image: int64 ``[B, R]``, the input that it comes from.
        source: ``[B, R, 1, 4]``, the rectangle in that input.
        target: ``[B, R, 1, 4]``, the rectangle in the output.
        cover: ``[B, 1, 1, 4]``, box of the output that an opaque overlay hides; None without overlays.
    """

    image: Tensor
    source: Tensor
    target: Tensor
    cover: Tensor | None = None

    def clip(self, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
        """Clip boxes of the inputs, given by two corners, to the source rectangles."""
        return torch.maximum(near, self.source[..., :2]), torch.minimum(far, self.source[..., 2:])

    def move(self, points: Tensor) -> Tensor:
        """Map edges of pixels from source to target rectangles."""
        extent = (self.source[..., 2:] - self.source[..., :2]).clamp(min=1)
        scale = (self.target[..., 2:] - self.target[..., :2]) / extent
        return (points - self.source[..., :2]) * scale + self.target[..., :2]

    def move_centres(self, points: Tensor) -> Tensor:
        """Map centres of pixels from source to target rectangles: corners aligned, as pixels are resampled."""
        last = self.source[..., 2:] - self.source[..., :2] - 1
        new_last = self.target[..., 2:] - self.target[..., :2] - 1
        offset = points - self.source[..., :2]
        scaled = torch.minimum(offset, last) * (new_last / last.clamp(min=1))
        return torch.where(last == new_last, offset, scaled) + self.target[..., :2]

    def collect(self, values: Tensor, keep: Tensor, score: Tensor) -> Candidates:
        """Bring results per rectangle, each ``[B, R, N, ...]``, into candidates per annotation, ``[B, N, R, ...]``."""
        count = values.shape[2]
        source = (self.image * count)[..., None] + torch.arange(count, device=values.device)
        return values.transpose(1, 2), torch.where(keep, source, -1).transpose(1, 2), score.transpose(1, 2)


def list_layers(plan: Plan, like: Tensor) -> list[Regions]:
    """The plan as rectangles: those of its base, and one per image for its overlay if any image has one.

    Args:
        plan: for B images.
        like: tensor whose dtype and device the rectangles get.
    """
    boxes = list_rectangles(plan)
    image, offset = boxes[..., 4], boxes[..., 5:]
    target = boxes[..., :4]
    layers = [_make_regions(image, target + offset.repeat(1, 1, 2), target, like)]
    if bool(plan.has_overlay.any()):
        swap = [1, 0, 3, 2]  # y before x in plans
        seen = plan.has_overlay & (plan.opacity > 0)
        source, target = (box[:, None, swap] * seen[:, None, None] for box in (plan.from_box, plan.to_box))
        opaque = target * (plan.opacity == 1)[:, None, None]
        layers[0] = layers[0]._replace(cover=opaque[:, None].to(like.device, like.dtype, non_blocking=True))
        layers.append(_make_regions(plan.overlay[:, None], source, target, like))
    return layers


def list_rectangles(plan: Plan) -> Tensor:
    """Rectangles of tiles that move together: int32 ``[B, R, 7]``, box, source image, and the source's offset x, y.

    Images with fewer rectangles than R are filled up with empty boxes. The margin is one more row and column of tiles,
    which never move.
    """
    # 1. How far each tile is moved: image, rows and columns of tiles, [3, B, G, G] and the margin.
    (height, width), grid = plan.size, plan.grid
    row, column = arange(grid)[:, None], arange(grid)
    tiles = plan.tiles.view(-1, grid, grid)
    entry = arange(len(plan))[:, None, None]
    shift = torch.stack([tiles // grid**2 - entry, tiles // grid % grid - row, tiles % grid - column])
    shift = F.pad(shift, (0, width % grid > 0, 0, height % grid > 0))

    # 2. Tiles in a row that move alike are one run, and runs of one extent below each other are one rectangle.
    left, right = run_bounds((shift[..., 1:] != shift[..., :-1]).any(0))
    run = torch.cat([shift, left[None], right[None]])
    apart = (run[..., 1:, :] != run[..., :-1, :]).any(0)
    top, bottom = (edge.mT for edge in run_bounds(apart.mT))
    first = (top == arange(top.shape[1])[:, None]) & (left == arange(left.shape[2]))

    # 3. From tiles to pixels, with one entry per tile.
    tile_height, tile_width = height // grid, width // grid
    x_edges = F.pad(arange(grid + 1) * tile_width, (0, shift.shape[3] - grid), value=width)
    y_edges = F.pad(arange(grid + 1) * tile_height, (0, shift.shape[2] - grid), value=height)
    image, down, across = shift
    edges = [x_edges[left], y_edges[top], x_edges[right], y_edges[bottom]]
    fields = torch.stack([*edges, image + entry, across * tile_width, down * tile_height], -1).flatten(1, 2)

    # 4. Keep each rectangle once, at its first tile.
    first = first.flatten(1)
    kept = chosen_first(first, at_least=1)
    fields[..., :4] *= first[..., None]  # the others are empty
    return fields.gather(1, kept[..., None].expand(-1, -1, 7))


def run_bounds(breaks: Tensor) -> tuple[Tensor, Tensor]:
    """Begin and end of the run that each of n + 1 places belongs to, int64 ``[..., n + 1]``.

    Args:
        breaks: bool ``[..., n]``, true where a run ends between two places.
    """
    place = arange(breaks.shape[-1] + 1)
    begins, ends = F.pad(breaks, (1, 0), value=True), F.pad(breaks, (0, 1), value=True)
    begin = torch.where(begins, place, 0).cummax(-1).values
    end = torch.where(ends, place + 1, len(place)).flip(-1).cummin(-1).values.flip(-1)
    return begin, end


def chosen_first(chosen: Tensor, at_least: int = 0) -> Tensor:
    """Numbers of the chosen columns of ``[B, n]``, in order, and then of others: int64 ``[B, most chosen]``."""
    most = int(chosen.sum(1).max()) if chosen.numel() else at_least
    return chosen.byte().argsort(dim=1, descending=True, stable=True)[:, :most]


def _make_regions(image: Tensor, source: Tensor, target: Tensor, like: Tensor) -> Regions:
    """Regions on the device and in the dtype of ``like``."""
    boxes = (box[:, :, None].to(like.device, like.dtype, non_blocking=True) for box in (source, target))
    return Regions(image.to(like.device, torch.int64, non_blocking=True), *boxes)
