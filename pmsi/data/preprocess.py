"""Preprocessing of stored uint8 images to network inputs: crop, normalise, cast."""

from __future__ import annotations

from typing import Any

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
    """Make network inputs from stored images: carry out a plan, crop, normalise, cast.

    Args:
        images: uint8 ``[N, 3, R, R]``, on the device.
        plan: of B images.
        index: int64 ``[B]``, rows of ``images`` that the plan counts as its own.
        window: int64 ``[B, 3]``, top, left and mirroring of each image's crop.
        dtype: of the inputs.
        out: memory for the inputs; by default it is allocated.

    Returns:
        ``[B, 3, crop, crop]``, channels_last, normalised by ImageNet's mean and deviation.
    """
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


def describe_preprocessing(recipe: Recipe) -> dict[str, Any]:
    """Describe how a test image becomes a network input, as plain values for a checkpoint or an exported file.

    Both sides become ``resize`` px whatever the image's shape (`pmsi.data.pixels.resize_pixels`), the central ``crop``
    is cut out, and each channel of its bytes becomes ``(value - mean) / std``.
    """
    return {
        "resize": recipe.resize,
        "filter": "bilinear, antialiased, in bytes",
        "crop": recipe.test_side,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
    }


def center_window(recipe: Recipe, count: int) -> Tensor:
    """Central crop of ``count`` test images as a window, int64 ``[count, 3]``: top, left, not mirrored."""
    margin = (recipe.resize - recipe.test_side) // 2
    return torch.tensor([[margin, margin, 0]]).expand(count, 3)
