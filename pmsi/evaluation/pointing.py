"""The pointing game (Zhang et al. 2016): does a class activation map peak on the bird? For data that say where it is.

Places are y, x in px, and boxes y0, x0, y1, x1, half open. CUB-200-2011 marks the bird's box and 15 parts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pmsi.data.cub_annotations import Annotations


def peak_points(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Centre of the highest cell of maps ``[B, h, w]`` on images of ``size`` (H, W): float32 ``[B, 2]``.

    The first of equal cells. (An interpolated map is flat towards its edges, so its first maximum would be a corner.)

    >>> peak_points(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), (224, 224)).tolist()
    [[56.0, 168.0]]
    """
    height, width = maps.shape[1:]
    cell = maps.flatten(1).argmax(1)
    cells = torch.stack([cell // width, cell % width], 1)
    scale = torch.tensor([size[0] / height, size[1] / width], device=maps.device)
    return torch.mul(cells + 0.5, scale)


class PointingScore(NamedTuple):
    """Points that hit, percent of the images that are marked; None for what the data set does not mark."""

    boxes: float | None
    parts: float | None


def score_points(points: Tensor, annotations: Annotations, *, tolerance: float = 15.0) -> PointingScore:
    """Count the points ``[N, 2]`` in the bird's box, and within ``tolerance`` px of a visible part.

    Compare with the centre of every image, ``torch.full((N, 2), crop / 2)``, which hits often: photographers aim.

    Raises:
        ValueError: not a point for each image.

    >>> score_points(torch.tensor([[5.0, 5.0]]), Annotations(torch.tensor([[0.0, 0.0, 9.0, 9.0]]), None))
    PointingScore(boxes=100.0, parts=None)
    """
    boxes, parts = annotations.boxes, annotations.parts
    for marks in (boxes, parts):
        if marks is not None and points.shape != (len(marks), 2):
            raise ValueError(f"score_points: needs points [{len(marks)}, 2], got {list(points.shape)}")
    points = points.cpu()
    in_box = near_part = None
    if boxes is not None:
        in_box = _percent(((points >= boxes[:, :2]) & (points < boxes[:, 2:])).all(1))
    if parts is not None:
        distances = (parts - points[:, None]).norm(dim=2)  # [N, P], NaN for hidden parts
        marked = distances.isfinite().any(1)
        near_part = _percent((distances <= tolerance).any(1)[marked])
    return PointingScore(in_box, near_part)


def _percent(hits: Tensor) -> float | None:
    return 100 * hits.double().mean().item() if len(hits) else None
