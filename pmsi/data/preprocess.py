"""From stored uint8 images to normalised network inputs: crop, normalise, cast."""

from __future__ import annotations

import torch
from torch import Tensor

from mosaicaug import Plan, apply
from pmsi.recipe import Recipe

# Per channel, in units of stored pixels, 0 to 255.
IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)


def preprocess(
    images: Tensor,
    plan: Plan,
    index: Tensor,
    window: Tensor,
    dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
) -> Tensor:
    """Network inputs ``[B, 3, crop, crop]``, channels_last, from stored uint8 images; into ``out`` if there is one."""
    return apply(
        images,
        plan,
        index=index,
        window=window,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        dtype=dtype,
        memory_format=torch.channels_last,
        out=out,
    )


def center_window(recipe: Recipe, count: int) -> Tensor:
    """The window of ``count`` test images, int64 ``[count, 3]``."""
    margin = (recipe.resize - recipe.test_side) // 2
    return torch.tensor([[margin, margin, 0]]).expand(count, 3)
