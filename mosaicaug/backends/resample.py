"""Bilinear sampling positions (corners aligned) and the dtype of arithmetic, shared by the torch backends."""

from __future__ import annotations

import torch
from torch import Tensor

Taps = tuple[Tensor, Tensor, Tensor]  # near and far source positions, and the far one's weight


def compute_dtype(images: Tensor) -> torch.dtype:
    """Dtype of all arithmetic on ``images``: float64 for float64 images, float32 otherwise."""
    return torch.float64 if images.dtype == torch.float64 else torch.float32


def bilinear_taps(offset: Tensor, start: Tensor, end: Tensor, length: Tensor, compute: torch.dtype) -> Taps:
    """Two source positions of each offset into a box, and the weight of the second; corners are aligned.

    Args:
        offset: pixels counted from the begin of the target box; those below 0 count as 0.
        start: first pixel of the source box along this axis.
        end: pixel after its last one.
        length: of the target box along this axis.
        compute: dtype of the weights.
    """
    last = end - start - 1
    scale = torch.where(length > 1, last.to(compute) / (length - 1).clamp(min=1).to(compute), 0)
    position = offset.to(compute).clamp(min=0) * scale
    near = torch.minimum(position.long(), last)
    far = torch.minimum(near + 1, last)
    return start + near, start + far, (position - near).clamp(0, 1)


def nearest_tap(near: Tensor, far: Tensor, weight: Tensor) -> Tensor:
    """Nearer one of two taps; the first if both are equally near."""
    return torch.where(weight > 0.5, far, near)
