"""Accuracy on corrupted test images (Wu et al. 2021, section IV-D, Table VII).

A corruption takes images uint8 ``[B, 3, h, w]``, after the central crop and before normalisation, and their numbers in
the split ``[B]``. What it draws for an image depends on the seed and that number alone, not on batches or devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torchvision.transforms.v2 import functional as tv

from pmsi.data.storage import ImageStore, Split
from pmsi.evaluation.accuracy import Evaluation, evaluate
from pmsi.recipe import Recipe
from pmsi.runtime.seeding import make_generator
from pmsi.runtime.session import Session

_ADJUSTMENTS = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)


def jitter_colors(images: Tensor, index: Tensor, *, seed: int = 0, strength: float = 1.0) -> Tensor:
    """Brightness, contrast and saturation, each times a factor from U(1 - strength, 1 + strength), in random order.

    This is torchvision's ColorJitter with three equal coefficients and no hue; the paper's coefficient is 1, factors
    of 0 to 2.

    Raises:
        TypeError, ValueError: not uint8 ``[B, 3, h, w]`` with B numbers, or a strength outside 0..1.

    >>> images = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    >>> jitter_colors(images, torch.tensor([7, 8]))[:, 0, 0, 0].tolist() == [100, 100]
    False
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"jitter_colors: strength must lie in 0..1, got {strength}")

    def jitter(image: Tensor, generator: Generator) -> Tensor:
        factors = 1 + strength * (2 * torch.rand(3, generator=generator, dtype=torch.float64) - 1)
        for which in torch.randperm(3, generator=generator).tolist():
            image = _ADJUSTMENTS[which](image, float(factors[which]))
        return image

    return _change_each("jitter_colors", images, index, seed, jitter)


def add_noise(images: Tensor, index: Tensor, *, seed: int = 0, sigma: float = 5.0) -> Tensor:
    """Gaussian noise of standard deviation ``sigma`` grey levels, for every pixel and channel; rounded and clipped.

    Raises:
        TypeError, ValueError: not uint8 ``[B, 3, h, w]`` with B numbers, or a negative sigma.

    >>> add_noise(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.tensor([0]), sigma=0).sum().item()
    0
    """
    _check_sigma("add_noise", sigma)

    def add(image: Tensor, generator: Generator) -> Tensor:
        noise = torch.randn(image.shape, generator=generator).to(image.device)
        return (image + sigma * noise).round().clamp(0, 255).to(torch.uint8)

    return _change_each("add_noise", images, index, seed, add)


def add_published_noise(images: Tensor, index: Tensor, *, seed: int = 0, sigma: float = 5.0) -> Tensor:
    """Gaussian noise as a widely copied snippet with the paper's parameter names makes it.

    One value for the three channels of a pixel; sums above 255 become 255, but sums below 0 are cast to uint8 as they
    are and wrap around, so that dark pixels turn bright. This is a hypothesis about the paper's drops: its variance of
    0 would be no noise, and ``sigma`` 5 is its amplitude with a variance of 1.

    Raises:
        TypeError, ValueError: not uint8 ``[B, 3, h, w]`` with B numbers, or a negative sigma.

    >>> black = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    >>> add_published_noise(black, torch.tensor([0])).max().item() > 240
    True
    """
    _check_sigma("add_published_noise", sigma)

    def add(image: Tensor, generator: Generator) -> Tensor:
        noise = torch.randn(image.shape[1:], generator=generator).to(image.device)
        return (image + sigma * noise).clamp(max=255).to(torch.int32).remainder(256).to(torch.uint8)

    return _change_each("add_published_noise", images, index, seed, add)


# By the names of Table VII's rows in `pmsi.paper`, and the snippet's noise.
CORRUPTIONS: Mapping[str, Callable[..., Tensor]] = {
    "color_jitter": jitter_colors,
    "gaussian_noise": add_noise,
    "published_noise": add_published_noise,
}


@dataclass(frozen=True)
class Robustness:
    """Accuracies of a network on clean test images, and on the same images under each corruption."""

    clean: Evaluation
    corrupted: Mapping[str, Evaluation]

    def change(self, corruption: str, what: Literal["concat", "mix"] = "mix") -> float:
        """Accuracy under the corruption minus clean accuracy, in points."""
        found: float = getattr(self.corrupted[corruption], what) - getattr(self.clean, what)
        return found


def measure_robustness(
    network: nn.Module,
    data: Split | ImageStore,
    recipe: Recipe,
    session: Session | None = None,
    *,
    corruptions: Mapping[str, Callable[..., Tensor]] = CORRUPTIONS,
    seed: int = 0,
) -> Robustness:
    """Evaluate ``network`` on ``data`` clean and under each corruption, which is called with ``seed=seed``."""
    session = session or Session()
    corrupted = {
        name: evaluate(network, data, recipe, session, corrupt=partial(corrupt, seed=seed))
        for name, corrupt in corruptions.items()
    }
    return Robustness(evaluate(network, data, recipe, session), corrupted)


def _change_each(
    name: str, images: Tensor, index: Tensor, seed: int, change: Callable[[Tensor, Generator], Tensor]
) -> Tensor:
    if images.dtype != torch.uint8:
        raise TypeError(f"{name}: takes uint8 images, before normalisation; got {images.dtype}")
    if images.ndim != 4 or images.shape[1] != 3 or index.shape != images.shape[:1]:
        raise ValueError(
            f"{name}: needs images [B, 3, h, w] and their B numbers, got {list(images.shape)} and {list(index.shape)}"
        )
    out = torch.empty_like(images)
    for row, number in enumerate(index.tolist()):
        out[row] = change(images[row], make_generator(seed, number))
    return out


def _check_sigma(name: str, sigma: float) -> None:
    if not sigma >= 0:
        raise ValueError(f"{name}: sigma must be 0 grey levels or more, got {sigma}")
