"""Several augmentations in one plan: `Compose` (one after another) and `OneOf` (one of them for each image)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn

from mosaicaug import sampling
from mosaicaug.augmentation import Augmentation
from mosaicaug.plan import Plan, arange, build_unchecked, overlay_share
from mosaicaug.sampling import Per
from mosaicaug.settings import Setting, check_weights
from mosaicaug.targets import Targets, mix_labels


def _check_count(weights: Sequence[float], members: Sequence[Augmentation]) -> None:
    """ValueError unless there is a weight for each member."""
    if len(weights) != len(members):
        raise ValueError(f"OneOf: needs {len(members)} weights of 0 or more, not all 0, got {weights}")


class _Several(Augmentation):
    """Base of `Compose` and `OneOf`: members that make one plan together."""

    settings: tuple[str, ...] = ()

    def __init__(self, augmentations: Sequence[Augmentation], *, per: Per = "sample") -> None:
        super().__init__(p=1.0, per=per)
        if isinstance(augmentations, Augmentation) or not hasattr(augmentations, "__iter__"):
            raise TypeError(f"{self.name}: needs a list of augmentations, got {type(augmentations).__name__}")
        augmentations = list(augmentations)
        wrong = [type(member).__name__ for member in augmentations if not isinstance(member, Augmentation)]
        if wrong or not augmentations:
            raise ValueError(f"{self.name}: needs one or more augmentations of mosaicaug, got {wrong or 'none'}")
        self.augmentations = nn.ModuleList(augmentations)
        _ = self.num_classes  # checked

    @property
    def members(self) -> list[Augmentation]:
        """Members in the order they were given."""
        return cast("list[Augmentation]", list(self.augmentations))

    # What follows from the members is read from them: their settings may change.
    @property
    def grid(self) -> int:  # type: ignore[override]
        """Tiles per side of its plans: the coarsest grid that carries those of all members."""
        return math.lcm(*(member.grid for member in self.members))

    @property
    def mixes(self) -> bool:  # type: ignore[override]
        """True if any member mixes images."""
        return any(member.mixes for member in self.members)

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]
        """Number of classes of the members that mix; ValueError if they differ in it."""
        kinds = {member.num_classes for member in self.members if member.mixes}
        if len(kinds) > 1:
            raise ValueError(f"{self.name}: num_classes must be the same for all mixing members, got {kinds}")
        return kinds.pop() if kinds else None

    @property
    def needs_one_grid(self) -> bool:
        """True if plans of several members are joined on one grid."""
        return True

    def _take_labels(self, labels: Any, batch: int, device: torch.device) -> Any:
        if self.mixes:
            return super()._take_labels(labels, batch, device)
        for member in self.members:
            labels = member._take_labels(labels, batch, device)
        return labels

    def _check_shape(self, shape: Sequence[int]) -> None:
        """ValueError for images that any member cannot take, or whose tiles have no common grid, drawn or not."""
        super()._check_shape(shape)
        grid, sides = self.grid, (shape[-2], shape[-1])
        for member in self.members:
            member._check_shape(shape)
        for member in self.members:
            tile = [side // member.grid for side in sides]
            if self.needs_one_grid and member.grid > 1 and any(side % (grid // member.grid) for side in tile):
                grids = sorted({each.grid for each in self.members})
                raise ValueError(
                    f"{self.name}: grids of {grids} tiles per side have no common grid on images of "
                    f"{sides[0]}x{sides[1]} px; sides must be multiples of {grid}, or grids divide each other"
                )

    def sample_members(self, batch: int, size: tuple[int, int], generator: Generator | None) -> list[Plan]:
        """Draw one plan per member, each from a generator of its own."""
        generators = sampling.split_generator(len(self.members), generator)
        plans = [
            member.sample((batch, 1, *size), generator=own)
            for member, own in zip(self.members, generators, strict=True)
        ]
        for member, plan in zip(self.members, plans, strict=True):
            if member.grid % plan.grid:
                raise ValueError(f"{member.name}: grid says {member.grid} tiles per side, but it drew {plan.grid}")
        return plans

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
    weights = Setting(check_weights)

    def __init__(
        self, augmentations: Sequence[Augmentation], weights: Sequence[float] | None = None, *, per: Per = "sample"
    ) -> None:
        super().__init__(augmentations, per=per)
        self.weights = [1.0] * len(self.members) if weights is None else weights
        _check_count(self.weights, self.members)
        self.last_choice: Tensor | None = None

    @property
    def needs_one_grid(self) -> bool:
        """True unless one member makes the whole batch; a compiled graph has one grid in any case."""
        return self.per == "sample" or torch.compiler.is_compiling()

    def _check_shape(self, shape: Sequence[int]) -> None:
        _check_count(self.weights, self.members)
        super()._check_shape(shape)

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
        return _choose(plans, self.last_choice)


def _choose(plans: Sequence[Plan], choice: Tensor) -> Plan:
    """Take image i from plan ``choice[i]`` (int64 ``[B]``), on the coarsest grid that carries all plans."""
    grid = math.lcm(*(plan.grid for plan in plans))
    plans = [plan.refine(grid // plan.grid) for plan in plans]
    row = arange(len(choice))

    def pick(name: str) -> Tensor:
        picked: Tensor = torch.stack([getattr(plan, name) for plan in plans])[choice, row]
        return picked

    drawn = None
    if any(plan.drawn_share is not None for plan in plans):
        drawn = torch.stack([overlay_share(plan) for plan in plans])[choice, row]
    boxes = pick("from_box"), pick("to_box")
    return build_unchecked(plans[0].size, pick("tiles"), pick("overlay"), *boxes, pick("opacity"), drawn)
