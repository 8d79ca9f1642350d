"""Playground: one photograph under all five augmentations, each with its plan and the line of code that makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mosaicaug import Augmentation, CutMix, Jigsaw, MixUp, Plan, RecursiveMosaic, SnapMix, Targets, apply
from pmsi.deployment.serve.uploads import make_link

SIDE = 320  # px of the pictures; what divides it leaves no margin: all r, and n of 1, 2, 4, 5, 8, 10 and 16
_LIMITS = {"r": (0, 5), "n": (1, 16), "alpha": (0.05, 10.0), "beta": (0.05, 20.0), "seed": (0, 2**31 - 1)}
Square = NDArray[np.uint8]


@dataclass(frozen=True)
class Dials:
    """Positions of the playground's sliders.

    Args:
        r: recursions of `RecursiveMosaic`.
        n: tiles per side of `Jigsaw`.
        alpha: of `CutMix` and `MixUp`.
        beta: of `SnapMix`.
        seed: of the draws.
    """

    r: int = 3
    n: int = 4
    alpha: float = 1.0
    beta: float = 5.0
    seed: int = 0

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Dials:
        """Dials of a request.

        Raises:
            ValueError: one that is no number, or out of range.
        """
        found: dict[str, Any] = {}
        for name, (low, high) in _LIMITS.items():
            value, whole = values.get(name, getattr(cls, name)), isinstance(low, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise ValueError(f"{name} must be a{' whole' if whole else ''} number, got {value!r}")
            if not low <= value <= high:
                raise ValueError(f"{name} must lie in {low}..{high}, got {value}")
            found[name] = value
        return cls(**found)

    def list_augmentations(self) -> list[tuple[Augmentation, str]]:
        """List the five augmentations, each with its line of code."""
        mixed = "images, targets = {}(images, labels{})"
        return [
            (RecursiveMosaic(r=self.r), f"images = RecursiveMosaic(r={self.r})(images)"),
            (Jigsaw(n=self.n), f"images = Jigsaw(n={self.n})(images)"),
            (CutMix(alpha=self.alpha), mixed.format(f"CutMix(alpha={self.alpha:g})", "")),
            (MixUp(alpha=self.alpha), mixed.format(f"MixUp(alpha={self.alpha:g})", "")),
            (SnapMix(beta=self.beta), mixed.format(f"SnapMix(beta={self.beta:g})", ", maps=maps")),
        ]


def make_cards(photo: Square, partner: Square | None, dials: Dials) -> list[dict[str, Any]]:
    """Make what the page shows of each augmentation.

    Args:
        photo: uint8 ``[3, side, side]``.
        partner: another picture of that size for those that mix; None takes the mirror image.
        dials: of the augmentations.

    Returns:
        For each a name, a line of code, a picture, its plan, and the label's weights or None.
    """
    images = torch.from_numpy(np.stack([photo, photo[:, :, ::-1] if partner is None else partner]))
    return [_make_card(augmentation, code, images, dials.seed) for augmentation, code in dials.list_augmentations()]


def _make_card(augmentation: Augmentation, code: str, images: torch.Tensor, seed: int) -> dict[str, Any]:
    plan = _draw(augmentation, images, seed)
    labels = torch.arange(2)
    found: Any = augmentation.targets(plan, labels, maps=_make_maps()) if augmentation.mixes else None
    weights = [float(found.weight_a[0]), float(found.weight_b[0])] if isinstance(found, Targets) else None
    name = type(augmentation).__name__
    return {
        "name": name,
        "import": f"from mosaicaug import {name}",
        "code": code,
        "picture": make_link(apply(images, plan)[0].numpy()),
        "plan": describe_plan(plan),
        "weights": weights,
    }


def _draw(augmentation: Augmentation, images: torch.Tensor, seed: int) -> Plan:
    """Draw a plan in which the first image, where it is mixed, has the second as its partner."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        plan = augmentation.sample(images.shape, generator=generator)
        if not augmentation.mixes or int(plan.overlay[0]) == 1:
            return plan


def _make_maps() -> torch.Tensor:
    """Activation maps ``[2, 7, 7]`` that take what is in the middle for what matters."""
    slope = torch.exp(-(torch.linspace(-2, 2, 7) ** 2))
    return (slope[:, None] * slope).expand(2, -1, -1)


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Plan of the first image as a page draws it.

    Returns:
        ``side`` in px; ``grid`` and the ``tiles`` of the image by their places in it; and of an overlay ``from`` and
        ``to`` (``y0, x0, y1, x1`` in px) and ``opacity``, or None.

    >>> describe_plan(Plan.identity(1, (4, 4)).refine(2))["tiles"]
    [0, 1, 2, 3]
    """
    laid = bool(plan.has_overlay[0])
    boxes = {"from": plan.from_box[0].tolist(), "to": plan.to_box[0].tolist(), "opacity": float(plan.opacity[0])}
    return {
        "side": plan.size[0],
        "grid": plan.grid,
        "tiles": plan.tiles[0].tolist(),
        "overlay": boxes if laid else None,
    }
