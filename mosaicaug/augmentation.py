"""What every augmentation shares: draw a plan, apply it, count the labels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Generator, Tensor, nn

from mosaicaug.apply import apply
from mosaicaug.checks import check_choice, check_images, check_labels
from mosaicaug.plan import Plan
from mosaicaug.sampling import Per
from mosaicaug.targets import Targets

# A compiled graph holds numbers: this is how it finds the augmentation whose draw it runs.
augmentations: WeakValueDictionary[int, Augmentation] = WeakValueDictionary()
_handles = itertools.count()
# What every draw in a compiled graph says that it writes, so that none overtakes another.
_order = torch.zeros((), device="cpu")


class Augmentation(nn.Module):
    """What all augmentations share: ``aug(images)`` or ``aug(images, labels)``, ``aug.sample``, ``aug.last_plan``.

    Images are ``[B, C, H, W]`` or video ``[B, T, C, H, W]`` (one plan per clip) of uint8 or any floating dtype; dtype,
    device and memory format are kept and the input is not changed. Draws come from torch's CPU generator, so that
    ``torch.manual_seed`` governs, or from ``generator=``.
    """

    mixes: bool = False  # whether images of other batch entries come in, and labels with them
    num_classes: int | None = None
    grid: int = 1  # tiles per side of its plans
    settings: tuple[str, ...] = ("p", "per")  # arguments to show in `repr`

    def __init__(self, *, p: float, per: Per) -> None:
        super().__init__()
        if isinstance(p, bool) or not 0 <= p <= 1:
            raise ValueError(f"{self.name}: p must lie in 0..1, got {p}")
        check_choice(self.name, "per", per, Per)
        self.p, self.per = p, per
        self.last_plan: Plan | None = None
        self._register()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._register()

    def _register(self) -> None:
        self.handle = next(_handles)
        augmentations[self.handle] = self

    def sample(self, shape: Sequence[int], *, generator: Generator | None = None) -> Plan:
        """Draw the plan for images of ``shape``, and keep it as ``last_plan``.

        Raises:
            ValueError: the rank is wrong, the images are smaller than the grid, or the generator is not on the CPU.
        """
        self.check_shape(shape)
        if generator is not None and generator.device.type != "cpu":
            raise ValueError(f"{self.name}: plans are drawn on the CPU, got a generator on {generator.device}")
        batch, size = 1 if len(shape) == 3 else shape[0], (shape[-2], shape[-1])
        if torch.compiler.is_compiling():
            *fields, choices = torch.ops.mosaicaug.draw(self.handle, batch, *size, _order)
            self.last_plan = Plan(size, *fields)
            for chooser, choice in zip(self.choosers, choices, strict=True):
                chooser.last_choice = choice
        else:
            self.last_plan = self.draw(batch, size, generator)
        return self.last_plan

    def targets(self, plan: Plan, labels: Tensor, *, maps: Tensor | None = None) -> Tensor | Targets:
        """The labels of the images that ``plan`` makes; ``maps`` are SnapMix's class activation maps."""
        raise NotImplementedError

    def forward(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        maps: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Any:
        """Augmented images; with ``labels`` (integer ``[B]`` or soft ``[B, K]``), images and targets.

        Raises:
            ValueError: labels are missing for a mixing augmentation, or do not fit the batch.
        """
        check_images(self.name, images)
        if labels is None:
            if self.mixes:
                raise ValueError(
                    f"{self.name}: mixing images mixes labels too, got none; call it with (images, labels), "
                    "or use apply(images, aug.sample(images.shape)) for the images alone"
                )
            plan = self.sample(images.shape, generator=generator)
            return apply(images[None], plan)[0] if images.ndim == 3 else apply(images, plan)
        if images.ndim == 3 and not self.mixes:
            return self.forward(images, generator=generator), labels
        check_labels(self.name, labels, len(images), self.num_classes)
        maps = self.find_maps(images, labels, maps)
        plan = self.sample(images.shape, generator=generator)
        return apply(images, plan), self.targets(plan, labels, maps=maps)

    @property
    def choosers(self) -> list[Any]:
        """Those within it that choose a member for each image (`mosaicaug.OneOf`)."""
        return [module for module in self.modules() if hasattr(module, "last_choice")]

    @property
    def name(self) -> str:
        """The class's name, for messages."""
        return type(self).__name__

    def check_shape(self, shape: Sequence[int]) -> None:
        """ValueError for images that this augmentation cannot take."""
        if len(shape) not in ((4, 5) if self.mixes else (3, 4, 5)):
            single = "" if self.mixes else "[C, H, W], "
            raise ValueError(f"{self.name}: images must be {single}[B, C, H, W] or [B, T, C, H, W], got {list(shape)}")

    def draw(self, batch: int, size: tuple[int, int], generator: Generator | None) -> Plan:
        """Draw the plan of ``batch`` images of ``size`` px; what `sample` checks has been checked."""
        raise NotImplementedError

    def find_maps(self, images: Tensor, labels: Tensor, maps: Tensor | None) -> Tensor | None:  # noqa: ARG002
        """The class activation maps that `targets` will need, if any."""
        return maps

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.settings)
