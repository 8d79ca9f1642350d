"""Several augmentations in one plan: `Compose` (one after another) and `OneOf` (one of them for each image)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Generator, Tensor, nn

from mosaicaug import sampling
from mosaicaug.augmentation import Augmentation
from mosaicaug.plan import Plan, choose
from mosaicaug.sampling import Per
from mosaicaug.targets import Targets, mix_labels


class _Several(Augmentation):
    """Base of `Compose` and `OneOf`: members that make one plan together."""

    settings: tuple[str, ...] = ()

    def __init__(self, augmentations: Sequence[Augmentation], *, per: Per = "sample") -> None:
        super().__init__(p=1.0, per=per)
        wrong = [type(member).__name__ for member in augmentations if not isinstance(member, Augmentation)]
        if wrong or not augmentations:
            raise ValueError(f"{self.name}: needs one or more augmentations of mosaicaug, got {wrong or 'none'}")
        self.augmentations = nn.ModuleList(augmentations)
        self.grid = math.lcm(*(member.grid for member in augmentations))
        kinds = {member.num_classes for member in self.members if member.mixes}
        if len(kinds) > 1:
            raise ValueError(f"{self.name}: num_classes must be the same for all mixing members, got {kinds}")
        self.mixes = bool(kinds)
        self.num_classes = kinds.pop() if kinds else None

    @property
    def members(self) -> list[Augmentation]:
        """Members in the order they were given."""
        return cast("list[Augmentation]", list(self.augmentations))

    def _check_shape(self, shape: Sequence[int]) -> None:
        super()._check_shape(shape)
        for member in self.members:
            member._check_shape(shape)

    def sample_members(self, batch: int, size: tuple[int, int], generator: Generator | None) -> list[Plan]:
        """Draw one plan per member, each from a generator of its own."""
        generators = sampling.split_generator(len(self.members), generator)
        return [
            member.sample((batch, 1, *size), generator=own)
            for member, own in zip(self.members, generators, strict=True)
        ]

    def _resolve_maps(self, images: Tensor, labels: Tensor, maps: Tensor | None) -> Tensor | None:
        for member in self.members:
            maps = member._resolve_maps(images, labels, maps)
        return maps


class Compose(_Several):
    """Apply tile augmentations one after another, then at most one that mixes: one plan, one pass over the images.

    Every member applies its own ``p`` once. An overlay is cut from the partner as it came in, not from its mosaic,
    and SnapMix reads an image's map as if its tiles had stayed.

    Args:
        augmentations: one or more; one that mixes images must be the last.

    Raises:
        ValueError: a mixing augmentation is not the last member (use `OneOf` to choose between several), or a member
            is no augmentation.

    Examples:
        >>> import torch
        >>> from mosaicaug import Compose, CutMix, RecursiveMosaic
        >>> aug = Compose([RecursiveMosaic(r=2, p=0.5), CutMix()])
        >>> images, targets = aug(torch.rand(4, 3, 32, 32), torch.arange(4))
    """

    def __init__(self, augmentations: Sequence[Augmentation]) -> None:
        super().__init__(augmentations)
        if any(member.mixes for member in self.members[:-1]):
            raise ValueError(
                "Compose: one plan holds one overlay, laid on top, so a mixing augmentation must be the last member; "
                "use OneOf to choose between several"
            )

    def targets(self, plan: Plan, labels: Tensor, *, maps: Tensor | None = None) -> Tensor | Targets:
        """Targets of the last member: tiles leave labels alone."""
        return self.members[-1].targets(plan, labels, maps=maps)

    def draw(self, batch: int, size: tuple[int, int], generator: Generator | None) -> Plan:
        """Draw every member's plan, and compose them."""
        plans = self.sample_members(batch, size, generator)
        tiles = functools.reduce(Plan.compose, [Plan.of_tiles(plan.tiles, size) for plan in plans]).tiles
        return replace(plans[-1], tiles=tiles)


class OneOf(_Several):
    """Choose one of several augmentations for each image, and then apply that member's own ``p``.

    After a draw, ``last_choice`` (int64 ``[B]``) holds the number of the member that made each image.

    Args:
        augmentations: to choose from.
        weights: chances, in any unit; equal by default.
        per: "sample" chooses for every image, "batch" once for all.

    Raises:
        ValueError: weights do not fit; tile grids that have no common refinement at the images' size (use
            ``per="batch"``).

    Examples:
        >>> import torch
        >>> from mosaicaug import CutMix, MixUp, OneOf
        >>> aug = OneOf([CutMix(), MixUp()], weights=[2, 1])
        >>> images, targets = aug(torch.rand(4, 3, 32, 32), torch.arange(4))
    """

    settings = ("weights", "per")

    def __init__(
        self, augmentations: Sequence[Augmentation], weights: Sequence[float] | None = None, *, per: Per = "sample"
    ) -> None:
        super().__init__(augmentations, per=per)
        weights = [1.0] * len(augmentations) if weights is None else [float(weight) for weight in weights]
        if len(weights) != len(augmentations) or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
            raise ValueError(f"OneOf: needs {len(augmentations)} weights of 0 or more, not all 0, got {weights}")
        self.weights = weights
        self.last_choice: Tensor | None = None

    def targets(self, plan: Plan, labels: Tensor, *, maps: Tensor | None = None) -> Tensor | Targets:
        """Targets of each image by the rule of the member in ``last_choice``.

        Raises:
            ValueError: the last draw was for another batch.
        """
        if not self.mixes:
            return labels
        if self.last_choice is None or len(self.last_choice) != len(plan):
            raise ValueError("OneOf.targets: the choice of members belongs to the last draw; call sample() first")
        counted = [
            member.targets(plan, labels, maps=maps)
            if member.mixes
            else mix_labels(plan, labels, num_classes=self.num_classes)
            for member in self.members
        ]
        choice, row = self.last_choice.to(labels.device), torch.arange(len(plan), device=labels.device)

        def pick(columns: Sequence[Tensor]) -> Tensor:
            return torch.stack(list(columns))[choice, row]

        hard = [targets for targets in counted if isinstance(targets, Targets)]
        if hard:
            return Targets(*(pick(columns) for columns in zip(*hard, strict=True)))
        return pick([targets for targets in counted if isinstance(targets, Tensor)])

    def draw(self, batch: int, size: tuple[int, int], generator: Generator | None) -> Plan:
        """Choose members, draw every member's plan, and take each image from the plan of its member."""
        chooser, drawer = sampling.split_generator(2, generator)
        self.last_choice = sampling.one_of(batch, self.weights, per=self.per, generator=chooser)
        plans = self.sample_members(batch, size, drawer)
        if self.per == "batch" and batch:
            return plans[int(self.last_choice[0])]
        return choose(plans, self.last_choice)
