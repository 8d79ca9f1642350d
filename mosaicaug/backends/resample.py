"""Bilinear sampling positions (corners aligned) and the dtype of arithmetic, for every backend."""

from __future__ import annotations

import torch
from torch import Tensor

_Taps = tuple[Tensor, Tensor, Tensor]  # near and far source positions, and the far one's weight


def compute_dtype(images: Tensor) -> torch.dtype:
    """The dtype that arithmetic on ``images`` is done in, whatever the backend."""
    return torch.float64 if images.dtype == torch.float64 else torch.float32


def bilinear_taps(offset: Tensor, start: Tensor, end: Tensor, length: Tensor, work: torch.dtype) -> _Taps:
    """For offsets into ``length`` px: where they fall in ``start..end`` with corners aligned."""
    last = end - start - 1
    scale = torch.where(length > 1, last.to(work) / (length - 1).clamp(min=1).to(work), 0)
    position = offset.to(work).clamp(min=0) * scale
    near = torch.minimum(position.long(), last)
    far = torch.minimum(near + 1, last)
    return start + near, start + far, (position - near).clamp(0, 1)


def nearest_tap(near: Tensor, far: Tensor, weight: Tensor) -> Tensor:
    """The nearest of two taps; the near one if both are as near."""
    return torch.where(weight > 0.5, far, near)
