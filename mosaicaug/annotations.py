"""Masks, boxes and keypoints that follow the pixels of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from mosaicaug.apply import Backend, apply_nearest
from mosaicaug.plan import Plan, arange

Pieces = Literal["all", "largest"]

# A mask is copied, whatever its bits mean.
_BITS = {1: torch.uint8, 2: torch.float16, 4: torch.float32, 8: torch.float64}
_SLACK = 0.01  # px that a box may reach beyond the image: rounding of whoever made it


class Placed(NamedTuple):
    """Boxes or keypoints on the images that a plan makes.

    Args:
        values: ``[B, M, 4]`` boxes or ``[B, M, 2]`` keypoints; 0 where there is nothing.
        source: int64 ``[B, M]``, which of the ``B * N`` given ones each was, counted row by row; -1 where there is
            nothing.
    """

    values: Tensor
    source: Tensor

    def take(self, labels: Tensor, fill: float = -1) -> Tensor:
        """What belongs to each of them, out of ``labels`` ``[B, N, ...]``: ``[B, M, ...]``, ``fill`` for nothing."""
        rows = labels.flatten(0, 1)
        if not len(rows):
            return labels.new_full((*self.source.shape, *labels.shape[2:]), fill)
        there = (self.source >= 0).view(*self.source.shape, *(1,) * (labels.ndim - 2))
        return torch.where(there, rows[self.source.clamp(min=0)], torch.as_tensor(fill, dtype=labels.dtype))


def apply_masks(
    masks: Tensor,
    plan: Plan,
    *,
    window: Tensor | None = None,
    index: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Masks of the images that ``plan`` makes: moved, never blended and never interpolated.

    Where boxes of two sizes are resampled, a mask takes the nearest pixel; where images are blended, the mask of the
    heavier one stands, at equal weights the image's own.

    Args:
        masks: ``[N, H, W]``, or with any leading dimensions between, such as ``[N, 1, H, W]``; any dtype.
        plan, window, index, backend: as `mosaicaug.apply`.

    Returns:
        As ``masks``, B of them and of ``plan.size``.

    Raises:
        ValueError: masks do not fit the plan.

    >>> from mosaicaug import RecursiveMosaic
    >>> aug, masks = RecursiveMosaic(r=2), torch.randint(0, 20, (4, 64, 64))
    >>> images = aug(torch.rand(4, 3, 64, 64))
    >>> apply_masks(masks, aug.last_plan).shape
    torch.Size([4, 64, 64])
    """
    _check_plan("apply_masks", plan)
    if masks.ndim < 3 or masks.is_complex():
        raise ValueError(f"apply_masks: masks must be [B, H, W] or [B, 1, H, W], got {masks.dtype} {list(masks.shape)}")
    if window is None and tuple(masks.shape[-2:]) != plan.size:
        raise ValueError(f"apply_masks: the plan is for {plan.size} px, got masks of {tuple(masks.shape[-2:])}")
    if index is None and len(masks) != len(plan):
        raise ValueError(f"apply_masks: the plan is for {len(plan)} images, got {len(masks)} masks")
    stands = plan.opacity > 0.5
    whole = replace(plan, to_box=plan.to_box * stands[:, None], opacity=torch.ones_like(plan.opacity))
    bits = masks.detach().view(_BITS[masks.element_size()])
    planes = bits[:, None] if bits.ndim == 3 else bits.flatten(1, -3)
    made = apply_nearest(planes, whole, window=window, index=index, backend=backend)
    return made.view(masks.dtype).view(len(plan), *masks.shape[1:-2], *plan.size)


def apply_boxes(boxes: Tensor, plan: Plan, *, min_visibility: float = 0.0, pieces: Pieces = "all") -> Placed:
    """Boxes on the images that ``plan`` makes; what tiles cut apart becomes several boxes.

    Neighbouring tiles that moved together cut nothing. What an opaque overlay covers is gone, and a box that it covers
    in part shrinks to what still shows; a blended overlay covers nothing.

    Args:
        boxes: ``[B, N, 4]`` x0, y0, x1, y1 in px, edges (half open); empty ones, as in padding, stay behind.
        plan: as drawn for the images, uncropped.
        min_visibility: least share of a box's area that a piece must still show, otherwise it is dropped.
        pieces: "all" gives every piece; their number M depends on values, so boxes on a GPU are waited for. "largest"
            keeps every box in its slot, as its largest piece: M = N, or 2N (own boxes, then the partner's) if the plan
            has overlays.

    Returns:
        ``values`` ``[B, M, 4]`` and ``source`` ``[B, M]``; boxes keep their floating dtype.

    Raises:
        ValueError: boxes do not fit the plan, or reach beyond the image (checked on the CPU).

    >>> from mosaicaug import Jigsaw
    >>> plan = Jigsaw(2).sample((1, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    >>> placed = apply_boxes(torch.tensor([[[0.0, 0.0, 2.0, 2.0], [3.0, 0.0, 5.0, 4.0]]]), plan)
    >>> placed.source.tolist(), placed.take(torch.tensor([[7, 9]])).tolist()
    ([[0, 1, 1]], [[7, 9, 9]])
    """
    _check_plan("apply_boxes", plan)
    _check_shape("apply_boxes", "boxes", boxes, plan, 4)
    _check_boxes(boxes, plan.size)
    if not 0 <= min_visibility <= 1:
        raise ValueError(f"apply_boxes: min_visibility must lie in 0..1, got {min_visibility}")
    if pieces not in get_args(Pieces):
        raise ValueError(f"apply_boxes: pieces must be one of {get_args(Pieces)}, got {pieces!r}")
    work = _to_work(boxes)
    parts = []
    for regions in _find_layers(plan, work):
        given = work[regions.image]  # [B, R, N, 4]
        near, far = regions.clip(given[..., :2], given[..., 2:])
        shown = _area(near, far)  # on the images that were given
        near, far = regions.move(near), regions.move(far)
        if regions.cover is not None:
            hidden = _area(torch.maximum(near, regions.cover[..., :2]), torch.minimum(far, regions.cover[..., 2:]))
            near, far = _shrink(near, far, regions.cover)
            shown = shown - hidden
        full = _area(given[..., :2], given[..., 2:])
        keep = (shown > 0) & (shown >= min_visibility * full)
        parts.append(regions.collect(torch.cat([near, far], -1), keep, shown))
    if pieces == "largest":
        return _join([_pick_best(*part) for part in parts], boxes)
    values, source = _join(parts, boxes)
    kept = _sort_first(source >= 0)
    return Placed(values.gather(1, kept[..., None].expand(-1, -1, 4)), source.gather(1, kept))


def apply_keypoints(keypoints: Tensor, plan: Plan) -> Placed:
    """Keypoints on the images that ``plan`` makes.

    Args:
        keypoints: ``[B, K, 2]`` x, y in px: 0 is the centre of the first pixel. Those outside the image stay behind.
        plan: as drawn for the images, uncropped.

    Returns:
        ``values`` and ``source``, every keypoint in its slot: ``[B, K]``, or ``[B, 2K]`` (own keypoints, then the
        partner's) if the plan has overlays. What an opaque overlay covers is gone.

    Raises:
        ValueError: keypoints do not fit the plan.

    >>> from mosaicaug import Jigsaw
    >>> plan = Jigsaw(2).sample((1, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    >>> apply_keypoints(torch.tensor([[[1.0, 2.0]]]), plan).values.tolist()
    [[[1.0, 6.0]]]
    """
    _check_plan("apply_keypoints", plan)
    _check_shape("apply_keypoints", "keypoints", keypoints, plan, 2)
    work = _to_work(keypoints)
    parts = []
    for regions in _find_layers(plan, work):
        given = work[regions.image]  # [B, R, K, 2]
        keep = ((given >= regions.source[..., :2]) & (given < regions.source[..., 2:])).all(-1)
        values = regions.move_centres(given)
        if regions.cover is not None:
            keep = keep & ~((values >= regions.cover[..., :2]) & (values < regions.cover[..., 2:])).all(-1)
        parts.append(_pick_best(*regions.collect(values, keep, keep.float())))
    return _join(parts, keypoints)


class _Regions(NamedTuple):
    """Rectangles of the output that come from one rectangle each, R per image; all boxes are x0, y0, x1, y1."""

    image: Tensor  # int64 [B, R], that it comes from
    source: Tensor  # [B, R, 1, 4], there
    target: Tensor  # [B, R, 1, 4], in the output
    cover: Tensor | None = None  # [B, 1, 1, 4], what lies over them all

    def clip(self, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
        """What the regions hold of boxes of their source."""
        return torch.maximum(near, self.source[..., :2]), torch.minimum(far, self.source[..., 2:])

    def move(self, points: Tensor) -> Tensor:
        """Edges of the source as edges of the output."""
        extent = (self.source[..., 2:] - self.source[..., :2]).clamp(min=1)
        scale = (self.target[..., 2:] - self.target[..., :2]) / extent
        return (points - self.source[..., :2]) * scale + self.target[..., :2]

    def move_centres(self, points: Tensor) -> Tensor:
        """Positions of pixels of the source as positions in the output: corners aligned, as pixels are resampled."""
        last = self.source[..., 2:] - self.source[..., :2] - 1
        new_last = self.target[..., 2:] - self.target[..., :2] - 1
        offset = points - self.source[..., :2]
        scaled = torch.minimum(offset, last) * (new_last / last.clamp(min=1))
        return torch.where(last == new_last, offset, scaled) + self.target[..., :2]

    def collect(self, values: Tensor, keep: Tensor, score: Tensor) -> _Part:
        """What the regions hold, each ``[B, R, N, ...]``, with the candidates for one given thing side by side."""
        count = values.shape[2]
        source = (self.image * count)[..., None] + torch.arange(count, device=values.device)
        return values.transpose(1, 2), torch.where(keep, source, -1).transpose(1, 2), score.transpose(1, 2)


_Part = tuple[Tensor, Tensor, Tensor]  # values [B, N, R, ...], source [B, N, R] and score [B, N, R]


def _find_layers(plan: Plan, like: Tensor) -> list[_Regions]:
    """The plan as rectangles: the base's, and the overlays' if it has any."""
    boxes = _find_rectangles(plan)
    image, offset = boxes[..., 4], boxes[..., 5:]
    target = boxes[..., :4]
    layers = [_regions(image, target + offset.repeat(1, 1, 2), target, like)]
    if bool(plan.has_overlay.any()):
        swap = [1, 0, 3, 2]  # y before x in plans
        seen = plan.has_overlay & (plan.opacity > 0)
        source, target = (box[:, None, swap] * seen[:, None, None] for box in (plan.from_box, plan.to_box))
        opaque = target * (plan.opacity == 1)[:, None, None]
        layers[0] = layers[0]._replace(cover=opaque[:, None].to(like.device, like.dtype, non_blocking=True))
        layers.append(_regions(plan.overlay[:, None], source, target, like))
    return layers


def _regions(image: Tensor, source: Tensor, target: Tensor, like: Tensor) -> _Regions:
    boxes = (box[:, :, None].to(like.device, like.dtype, non_blocking=True) for box in (source, target))
    return _Regions(image.to(like.device, torch.int64, non_blocking=True), *boxes)


def _find_rectangles(plan: Plan) -> Tensor:
    """Rectangles of tiles that move together: int32 ``[B, R, 7]``, x0, y0, x1, y1, source image, and its offset x, y.

    Tiles in a row that move alike are one run, and runs of one extent below each other are one rectangle. The margin is
    one more row and column of tiles, which never move.
    """
    (height, width), grid = plan.size, plan.grid
    row, column = arange(grid)[:, None], arange(grid)
    tiles = plan.tiles.view(-1, grid, grid)
    entry = arange(len(plan))[:, None, None]
    shift = torch.stack([tiles // grid**2 - entry, tiles // grid % grid - row, tiles % grid - column])  # [3, B, G, G]
    shift = F.pad(shift, (0, width % grid > 0, 0, height % grid > 0))
    left, right = _find_runs((shift[..., 1:] != shift[..., :-1]).any(0))
    run = torch.cat([shift, left[None], right[None]])
    apart = (run[..., 1:, :] != run[..., :-1, :]).any(0)
    top, bottom = (edge.mT for edge in _find_runs(apart.mT))
    first = (top == arange(top.shape[1])[:, None]) & (left == arange(left.shape[2]))
    tile_height, tile_width = height // grid, width // grid
    x_edges = F.pad(arange(grid + 1) * tile_width, (0, shift.shape[3] - grid), value=width)
    y_edges = F.pad(arange(grid + 1) * tile_height, (0, shift.shape[2] - grid), value=height)
    image, down, across = shift
    edges = [x_edges[left], y_edges[top], x_edges[right], y_edges[bottom]]
    fields = torch.stack([*edges, image + entry, across * tile_width, down * tile_height], -1).flatten(1, 2)
    first = first.flatten(1)
    kept = _sort_first(first, at_least=1)
    fields[..., :4] *= first[..., None]  # the others are empty
    return fields.gather(1, kept[..., None].expand(-1, -1, 7))


def _find_runs(breaks: Tensor) -> tuple[Tensor, Tensor]:
    """Begin and end of the run that each of n + 1 places is in, int64 ``[..., n + 1]``; ``breaks`` ``[..., n]``."""
    place = arange(breaks.shape[-1] + 1)
    begins, ends = F.pad(breaks, (1, 0), value=True), F.pad(breaks, (0, 1), value=True)
    begin = torch.where(begins, place, 0).cummax(-1).values
    end = torch.where(ends, place + 1, len(place)).flip(-1).cummin(-1).values.flip(-1)
    return begin, end


def _shrink(near: Tensor, far: Tensor, cover: Tensor) -> tuple[Tensor, Tensor]:
    """The least boxes round what ``cover`` leaves of them."""
    low, high = cover[..., :2], cover[..., 2:]
    across = ((low <= near) & (high >= far)).flip(-1)  # along an axis only if the whole of the other one is covered
    new_near = torch.where(across & (low <= near), torch.maximum(near, high), near)
    new_far = torch.where(across & (high >= far), torch.minimum(far, low), far)
    return new_near, new_far


def _pick_best(values: Tensor, source: Tensor, score: Tensor) -> _Part:
    """One of R candidates, ``[B, N, 1, ...]``; a dropped one scores least."""
    best = torch.where(source >= 0, score, -1).argmax(2, keepdim=True)
    row = best[..., None].expand(-1, -1, -1, values.shape[-1])
    return values.gather(2, row), source.gather(2, best), score.gather(2, best)


def _sort_first(chosen: Tensor, at_least: int = 0) -> Tensor:
    """Places of what is chosen ``[B, n]``, in order, and then of others: int64, as many as the most chosen ones."""
    most = int(chosen.sum(1).max()) if chosen.numel() else at_least
    return chosen.byte().argsort(dim=1, descending=True, stable=True)[:, :most]


def _join(parts: Sequence[_Part], given: Tensor) -> Placed:
    """All layers one after the other, in a dtype like that of ``given``."""
    values, source = (torch.cat([part[k].flatten(1, 2) for part in parts], 1) for k in (0, 1))
    dtype = given.dtype if given.is_floating_point() else torch.float32
    return Placed(torch.where((source >= 0)[..., None], values, 0).to(dtype), source)


def _area(near: Tensor, far: Tensor) -> Tensor:
    return (far - near).clamp(min=0).prod(-1)


def _to_work(values: Tensor) -> Tensor:
    return values.double() if values.dtype == torch.float64 else values.float()


def _check_plan(caller: str, plan: Plan) -> None:
    if not isinstance(plan, Plan):
        raise TypeError(f"{caller}: plan must be a Plan, got {type(plan).__name__}")


def _check_shape(caller: str, name: str, values: Tensor, plan: Plan, width: int) -> None:
    if values.ndim != 3 or values.shape[-1] != width or len(values) != len(plan):
        raise ValueError(f"{caller}: {name} must be [{len(plan)}, N, {width}], got {list(values.shape)}")
    if values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"{caller}: {name} must be numbers, got {values.dtype}")


def _check_boxes(boxes: Tensor, size: tuple[int, int]) -> None:
    """Values on a GPU are not read back."""
    if boxes.device.type != "cpu" or torch.compiler.is_compiling() or not boxes.numel():
        return
    near, far = boxes[..., :2].double(), boxes[..., 2:].double()
    limit = torch.tensor([size[1], size[0]])
    wrong = ~((near >= -_SLACK) & (far <= limit + _SLACK) & (near <= far)).all(-1)
    if bool(wrong.any()):
        image, number = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"apply_boxes: boxes must be x0, y0, x1, y1 inside {size[1]}x{size[0]} px (width x height) with x0 <= x1 "
            f"and y0 <= y1, got {boxes[image, number].tolist()} for box {number} of image {image}; clip them first"
        )
