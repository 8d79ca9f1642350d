"""Calls of `mosaicaug.kornia` that the tests of that door compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

KEYS = ["input", "class"]
Make = Callable[..., Any]


def see_all(images: Tensor, _: Tensor) -> Tensor:
    """Maps for SnapMix, at module level so that it can be pickled; of clips too."""
    return images.float().mean(tuple(range(1, images.ndim - 2)))


def same(one: Any, other: Any) -> bool:
    """Equal bit for bit, NaN included, whatever is in them."""
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(-7), other.nan_to_num(-7))
    return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))


def call_seeded(call: Callable[[], Any], seed: int = 5) -> Any:
    torch.manual_seed(seed)
    return call()


def show_classes(labels: Tensor, num_classes: int, size: tuple[int, int]) -> Tensor:
    """One plane for each class, full where an image shows it: what an output shows is the mean of each plane."""
    planes = torch.nn.functional.one_hot(labels, num_classes).float()
    return planes[:, :, None, None].expand(-1, -1, *size).contiguous()
