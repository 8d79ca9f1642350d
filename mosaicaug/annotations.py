"""Masks, boxes and keypoints that follow the pixels of a plan: `apply_masks`, `apply_boxes`, `apply_keypoints`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from mosaicaug.apply import Backend, apply_nearest
from mosaicaug.checks import can_read, check_chance, check_tensor
from mosaicaug.plan import Plan
from mosaicaug.rectangles import Candidates, chosen_first, list_layers

Pieces = Literal["all", "largest"]

# A mask is copied, whatever its bits mean.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SLACK = 0.01  # px that a box may reach beyond the image: rounding of whoever made it


class Placed(NamedTuple):
    """Boxes or keypoints on the images that a plan makes, with the number of the given one that each was.

    Attributes:
        values: ``[B, M, 4]`` boxes or ``[B, M, 2]`` keypoints, px; 0 in empty slots.
        source: int64 ``[B, M]``, number of the given one, of ``B * N`` counted row by row; -1 in empty slots.

    Examples:
        >>> import torch
        >>> from mosaicaug import Jigsaw, apply_keypoints
        >>> plan = Jigsaw(2).sample((1, 3, 8, 8))
        >>> placed = apply_keypoints(torch.tensor([[[1.0, 2.0], [5.0, 6.0]]]), plan)
        >>> placed.source.tolist(), placed.take(torch.tensor([[17, 19]])).tolist()
        ([[0, 1]], [[17, 19]])
    """

    values: Tensor
    source: Tensor

    def take(self, labels: Tensor, fill: float = -1) -> Tensor:
        """Labels of these boxes or keypoints, ``[B, M, ...]``, out of those of the given ones.

        Args:
            labels: ``[B, N, ...]``, one for each given box or keypoint.
            fill: value for empty slots.
        """
        check_tensor("Placed.take", "labels", labels)
        rows = labels.flatten(0, 1)
        if not len(rows):
            return labels.new_full((*self.source.shape, *labels.shape[2:]), fill)
        there = (self.source >= 0).view(*self.source.shape, *(1,) * (labels.ndim - 2))
        return torch.where(there, rows[self.source.clamp(min=0)], labels.new_tensor(fill))


def apply_masks(
    masks: Tensor,
    plan: Plan,
    *,
    window: Tensor | Sequence[Sequence[int]] | None = None,
    index: Tensor | Sequence[int] | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Move masks along with the pixels of a plan, without blending or interpolating them.

    Where boxes of two sizes are resampled, a mask takes the nearest pixel; where images are blended, the mask of the
    heavier one stands, at equal weights the image's own.

    Args:
        masks: ``[N, H, W]``, or with any leading dimensions between, such as ``[N, 1, H, W]``; any dtype.
        plan: as drawn for the images.
        window: integer ``[B, 3]``, crop and flip of each batch entry, as for `mosaicaug.apply`.
        index: integer ``[B]``, stored mask of each batch entry.
        backend: "auto", "torch" or "triton".

    Returns:
        ``[B, ..., *plan.size]`` in the dtype of ``masks``.

    Raises:
        ValueError: masks do not fit the plan, or an argument is refused by `mosaicaug.apply`.
        TypeError: ``plan`` is not a Plan, or an argument that has to be a tensor is none.

    Examples:
        >>> import torch
        >>> from mosaicaug import RecursiveMosaic, apply_masks
        >>> aug, masks = RecursiveMosaic(r=2), torch.randint(0, 20, (4, 64, 64))
        >>> images = aug(torch.rand(4, 3, 64, 64))
        >>> apply_masks(masks, aug.last_plan).shape
        torch.Size([4, 64, 64])
    """
    _check_plan("apply_masks", plan)
    check_tensor("apply_masks", "masks", masks)
    if masks.ndim < 3 or masks.is_complex():
        raise ValueError(f"apply_masks: masks must be [B, H, W] or [B, 1, H, W], got {masks.dtype} {list(masks.shape)}")
    if window is None and tuple(masks.shape[-2:]) != plan.size:
        raise ValueError(f"apply_masks: the plan is for {plan.size} px, got masks of {tuple(masks.shape[-2:])}")
    if index is None and len(masks) != len(plan):
        raise ValueError(f"apply_masks: the plan is for {len(plan)} images, got {len(masks)} masks")
    stands = plan.opacity > 0.5
    whole = replace(plan, to_box=plan.to_box * stands[:, None], opacity=torch.ones_like(plan.opacity))
    bits = _view_as(masks.detach(), _BITS[masks.element_size()])
    planes = bits[:, None] if bits.ndim == 3 else bits.flatten(1, -3)
    made = apply_nearest(planes, whole, window=window, index=index, backend=backend)
    return _view_as(made, masks.dtype).view(len(plan), *masks.shape[1:-2], *plan.size)


def _view_as(x: Tensor, dtype: torch.dtype) -> Tensor:
    """View the bits of ``x`` as another dtype, if it is another: `vmap` of torch 2.11 has no rule for that."""
    return x if x.dtype is dtype else x.view(dtype)


def apply_boxes(boxes: Tensor, plan: Plan, *, min_visibility: float = 0.0, pieces: Pieces = "all") -> Placed:
    """Move boxes along with the pixels of a plan; a box that tiles cut apart becomes several.

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
        ValueError: boxes do not fit the plan, or reach beyond the image (checked on the CPU); an option is out of
            range.
        TypeError: ``plan`` is not a Plan, or an argument that has to be a tensor is none.

    Examples:
        >>> import torch
        >>> from mosaicaug import Jigsaw, apply_boxes
        >>> plan = Jigsaw(2).sample((1, 3, 8, 8), generator=torch.Generator().manual_seed(0))
        >>> placed = apply_boxes(torch.tensor([[[0.0, 0.0, 2.0, 2.0], [3.0, 0.0, 5.0, 4.0]]]), plan)
        >>> placed.source.tolist(), placed.take(torch.tensor([[7, 9]])).tolist()
        ([[0, 1, 1]], [[7, 9, 9]])
    """
    _check_plan("apply_boxes", plan)
    _check_shape("apply_boxes", "boxes", boxes, plan, 4)
    _check_boxes(boxes, plan.size)
    min_visibility = check_chance("apply_boxes", "min_visibility", min_visibility)
    if pieces not in get_args(Pieces):
        raise ValueError(f"apply_boxes: pieces must be one of {get_args(Pieces)}, got {pieces!r}")
    values, parts = _to_float(boxes), []
    # 1. Per layer: clip every box to every rectangle, move what is left, and take off what the overlay covers.
    for regions in list_layers(plan, values):
        given = values[regions.image]  # [B, R, N, 4]
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
    # 2. One slot per box, or all pieces with the empty slots taken out.
    if pieces == "largest":
        return _join([_pick_best(*part) for part in parts], boxes)
    pieces_of_all, source = _join(parts, boxes)
    kept = chosen_first(source >= 0)
    return Placed(pieces_of_all.gather(1, kept[..., None].expand(-1, -1, 4)), source.gather(1, kept))


def apply_keypoints(keypoints: Tensor, plan: Plan) -> Placed:
    """Move keypoints along with the pixels of a plan.

    Args:
        keypoints: ``[B, K, 2]`` x, y in px: 0 is the centre of the first pixel. Those outside the image stay behind.
        plan: as drawn for the images, uncropped.

    Returns:
        ``values`` and ``source``, every keypoint in its slot: ``[B, K]``, or ``[B, 2K]`` (own keypoints, then the
        partner's) if the plan has overlays. What an opaque overlay covers is gone.

    Raises:
        ValueError: keypoints do not fit the plan.
        TypeError: ``plan`` is not a Plan, or an argument that has to be a tensor is none.

    Examples:
        >>> import torch
        >>> from mosaicaug import Jigsaw, apply_keypoints
        >>> plan = Jigsaw(2).sample((1, 3, 8, 8), generator=torch.Generator().manual_seed(0))
        >>> apply_keypoints(torch.tensor([[[1.0, 2.0]]]), plan).values.tolist()
        [[[1.0, 6.0]]]
    """
    _check_plan("apply_keypoints", plan)
    _check_shape("apply_keypoints", "keypoints", keypoints, plan, 2)
    points, parts = _to_float(keypoints), []
    for regions in list_layers(plan, points):
        given = points[regions.image]  # [B, R, K, 2]
        keep = ((given >= regions.source[..., :2]) & (given < regions.source[..., 2:])).all(-1)
        values = regions.move_centres(given)
        if regions.cover is not None:
            keep = keep & ~((values >= regions.cover[..., :2]) & (values < regions.cover[..., 2:])).all(-1)
        parts.append(_pick_best(*regions.collect(values, keep, keep.float())))
    return _join(parts, keypoints)


def _shrink(near: Tensor, far: Tensor, cover: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest boxes that hold what ``cover`` leaves of boxes given by two corners."""
    low, high = cover[..., :2], cover[..., 2:]
    across = ((low <= near) & (high >= far)).flip(-1)  # along an axis only if the whole of the other one is covered
    new_near = torch.where(across & (low <= near), torch.maximum(near, high), near)
    new_far = torch.where(across & (high >= far), torch.minimum(far, low), far)
    return new_near, new_far


def _pick_best(values: Tensor, source: Tensor, score: Tensor) -> Candidates:
    """Best-scored of R candidates, ``[B, N, 1, ...]``; a dropped one scores least."""
    best = torch.where(source >= 0, score, -1).argmax(2, keepdim=True)
    row = best[..., None].expand(-1, -1, -1, values.shape[-1])
    return values.gather(2, row), source.gather(2, best), score.gather(2, best)


def _join(parts: Sequence[Candidates], given: Tensor) -> Placed:
    """Concatenate the candidates of all layers, in the floating dtype of ``given`` or in float32."""
    values, source = (torch.cat([part[k].flatten(1, 2) for part in parts], 1) for k in (0, 1))
    dtype = given.dtype if given.is_floating_point() else torch.float32
    return Placed(torch.where((source >= 0)[..., None], values, 0).to(dtype), source)


def _area(near: Tensor, far: Tensor) -> Tensor:
    """Area of boxes given by two corners; 0 for boxes turned round."""
    return (far - near).clamp(min=0).prod(-1)


def _to_float(values: Tensor) -> Tensor:
    """Numbers in the dtype of arithmetic: float64 for float64, float32 otherwise."""
    return values.double() if values.dtype == torch.float64 else values.float()


def _check_plan(caller: str, plan: Plan) -> None:
    """TypeError unless ``plan`` is a Plan."""
    if not isinstance(plan, Plan):
        raise TypeError(f"{caller}: plan must be a Plan, got {type(plan).__name__}")


def _check_shape(caller: str, name: str, values: Tensor, plan: Plan, width: int) -> None:
    """ValueError unless ``values`` are numbers ``[B, N, width]`` for the plan's B images, TypeError if no tensor."""
    check_tensor(caller, name, values)
    if values.ndim != 3 or values.shape[-1] != width or len(values) != len(plan):
        raise ValueError(f"{caller}: {name} must be [{len(plan)}, N, {width}], got {list(values.shape)}")
    if values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"{caller}: {name} must be numbers, got {values.dtype}")


def _check_boxes(boxes: Tensor, size: tuple[int, int]) -> None:
    """ValueError for boxes that are turned round or leave the image; values on a GPU are not read back."""
    if not can_read(boxes):
        return
    near, far = boxes[..., :2].double(), boxes[..., 2:].double()
    limit = torch.tensor([size[1], size[0]], device="cpu")
    wrong = ~((near >= -_SLACK) & (far <= limit + _SLACK) & (near <= far)).all(-1)
    if bool(wrong.any()):
        image, number = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"apply_boxes: boxes must be x0, y0, x1, y1 inside {size[1]}x{size[0]} px (width x height) with x0 <= x1 "
            f"and y0 <= y1, got {boxes[image, number].tolist()} for box {number} of image {image}; clip them first"
        )
