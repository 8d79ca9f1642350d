"""`Request`: the checked arguments of one call of `mosaicaug.apply`, in the form that every backend takes.

A backend is a function ``run(images, plan, request, out)`` that returns the images it made: ``out`` if one was passed,
fresh memory of the request's dtype and layout otherwise. The Triton backend takes a `Table` in place of the plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Request:
    """Arguments of `mosaicaug.apply` beside images and plan: already checked, with every default filled in.

    Args:
        dtype: of the output.
        channels_last: layout of the output where a backend makes it; otherwise contiguous.
        window: integer ``[B, 3]``, y0, x0 and flip of each batch entry.
        index: integer ``[B]``, stored image of each batch entry.
        mean: ``[C]`` in the dtype of the arithmetic, subtracted from each pixel.
        std: ``[C]`` likewise, above 0; pixels are multiplied by ``1 / std``.
        nearest: take the nearest pixel where `mosaicaug.apply` would interpolate.
    """

    dtype: torch.dtype
    channels_last: bool
    window: Tensor | None = None
    index: Tensor | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
    nearest: bool = False

    @property
    def scale(self) -> Tensor | None:
        """``1 / std``, ``[C]``: a product per pixel is cheaper than a division, and the same on every backend."""
        return None if self.std is None else 1 / self.std

    def mean_and_scale(self, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """``mean`` and ``scale`` as ``[C, 1, 1]`` on ``device``."""
        mean, scale = (
            None if values is None else values.to(device, non_blocking=True).view(-1, 1, 1)
            for values in (self.mean, self.scale)
        )
        return mean, scale

    def make_output(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Fresh memory for the output."""
        return make_empty(shape, self.dtype, device, channels_last=self.channels_last)


def make_empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, *, channels_last: bool) -> Tensor:
    """Fresh memory ``[..., C, H, W]`` in one of the two layouts; channels_last for videos too."""
    if not channels_last:
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.empty((*shape[:-3], *shape[-2:], shape[-3]), dtype=dtype, device=device).movedim(-1, -3)
