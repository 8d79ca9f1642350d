"""Base classes of augmentations: draw a plan, apply it, mix the labels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import default_collate

from mosaicaug.apply import apply
from mosaicaug.checks import check_choice, check_images, check_integer, check_labels
from mosaicaug.plan import Plan
from mosaicaug.sampling import Per
from mosaicaug.targets import Targets, mix_labels
from mosaicaug.zorder import Permutation

# A compiled graph holds numbers only; by this number it gets the augmentation whose draw it runs.
augmentations: WeakValueDictionary[int, Augmentation] = WeakValueDictionary()
_handles = itertools.count()
# Every draw in a compiled graph declares that it writes this tensor, so that none overtakes another.
_order = torch.zeros((), device="cpu")


class Augmentation(nn.Module):
    """Base class of all augmentations: ``aug(images)``, or ``aug(images, labels)`` for images and targets.

    Images are ``[B, C, H, W]`` or video ``[B, T, C, H, W]`` (one plan per clip) of uint8 or any floating dtype; dtype,
    device and memory format are kept and the input is not changed. Draws come from torch's CPU generator, so that
    ``torch.manual_seed`` governs, or from ``generator=``. ``aug.last_plan`` is the plan of the last call.

    Args:
        p: chance that an image, or with ``per="batch"`` the batch, is augmented.
        per: "sample" draws for every image, "batch" once for all.

    Raises:
        ValueError: an argument is out of range.

    Examples:
        An augmentation of your own overrides `draw`, and `targets` if it mixes labels or leaves them alone:

        >>> import torch
        >>> from mosaicaug import Augmentation, Plan
        >>> class Swap(Augmentation):
        ...     '''Swap the left and the right half of each image with chance p.'''
        ...     grid = 2
        ...     def draw(self, batch, size, generator):
        ...         swapped = torch.tensor([1, 0, 3, 2], dtype=torch.int32)
        ...         kept = torch.arange(4, dtype=torch.int32)
        ...         chosen = torch.rand(batch, 1, generator=generator) < self.p
        ...         tiles = torch.where(chosen, swapped, kept) + 4 * torch.arange(batch, dtype=torch.int32)[:, None]
        ...         return Plan.of_tiles(tiles, size)
        ...     def targets(self, plan, labels, *, maps=None):
        ...         return labels
        >>> Swap(p=1.0, per="sample")(torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 4, 4))[0, 0, 0].tolist()
        [2.0, 3.0, 0.0, 1.0]
    """

    mixes: bool = False  # True where images of other batch entries come in, and labels with them
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
        """Take a new number, also after copying or unpickling: a copy draws for itself."""
        self._handle = next(_handles)
        augmentations[self._handle] = self

    def sample(self, shape: Sequence[int], *, generator: Generator | None = None) -> Plan:
        """Draw the plan for images of ``shape``, and keep it as ``last_plan``.

        Args:
            shape: of the images, ``[B, C, H, W]`` or ``[B, T, C, H, W]``; ``[C, H, W]`` for tile augmentations.
            generator: on the CPU; torch's default one if None.

        Raises:
            ValueError: the rank is wrong, the images are smaller than the grid, or the generator is not on the CPU.
        """
        self._check_shape(shape)
        if generator is not None and generator.device.type != "cpu":
            raise ValueError(f"{self.name}: plans are drawn on the CPU, got a generator on {generator.device}")
        batch, size = 1 if len(shape) == 3 else shape[0], (shape[-2], shape[-1])
        if torch.compiler.is_compiling():
            *fields, choices = torch.ops.mosaicaug.draw(self._handle, batch, *size, _order)
            self.last_plan = Plan(size, *fields)
            for one_of, choice in zip(self._one_ofs, choices, strict=True):
                one_of.last_choice = choice
        else:
            self.last_plan = self.draw(batch, size, generator)
        return self.last_plan

    def targets(self, plan: Plan, labels: Tensor, *, maps: Tensor | None = None) -> Tensor | Targets:
        """Targets of the images that ``plan`` makes (override point).

        Args:
            plan: as drawn for the batch.
            labels: integer ``[B]`` or soft ``[B, K]``, already checked.
            maps: class activation maps ``[B, h, w]``, which SnapMix alone needs.

        Returns:
            ``Targets`` or soft labels ``[B, K]``; ``labels`` themselves where they do not change.
        """
        raise NotImplementedError

    def forward(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        maps: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Any:
        """Augment a batch: images, or with ``labels`` images and targets.

        Args:
            images: ``[B, C, H, W]`` or ``[B, T, C, H, W]``; ``[C, H, W]`` for tile augmentations.
            labels: integer ``[B]`` or soft ``[B, K]``; required where images are mixed.
            maps: class activation maps ``[B, h, w]`` for SnapMix.
            generator: on the CPU; torch's default one if None.

        Raises:
            ValueError: labels are missing for a mixing augmentation, or do not fit the batch; images do not fit.
            TypeError: ``images`` is not a tensor.
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
        maps = self._resolve_maps(images, labels, maps)
        plan = self.sample(images.shape, generator=generator)
        return apply(images, plan), self.targets(plan, labels, maps=maps)

    @property
    def _one_ofs(self) -> list[Any]:
        """Every `mosaicaug.OneOf` within this augmentation, itself included."""
        return [module for module in self.modules() if hasattr(module, "last_choice")]

    @property
    def name(self) -> str:
        """Name of the class, for messages."""
        return type(self).__name__

    def _check_shape(self, shape: Sequence[int]) -> None:
        """ValueError for images that this augmentation cannot take."""
        if len(shape) not in ((4, 5) if self.mixes else (3, 4, 5)):
            single = "" if self.mixes else "[C, H, W], "
            raise ValueError(f"{self.name}: images must be {single}[B, C, H, W] or [B, T, C, H, W], got {list(shape)}")

    def draw(self, batch: int, size: tuple[int, int], generator: Generator | None) -> Plan:
        """Draw the plan of a batch (override point); `sample` has checked the images' shape.

        Args:
            batch: B, number of images.
            size: height and width, px.
            generator: passed on to every random call of torch.
        """
        raise NotImplementedError

    def _resolve_maps(self, images: Tensor, labels: Tensor, maps: Tensor | None) -> Tensor | None:  # noqa: ARG002
        """Class activation maps that `targets` needs, computed or checked before anything is drawn."""
        return maps

    def collate(self, samples: Sequence[Any]) -> Any:
        """Stack samples and augment the batch: the ``collate_fn`` of a `DataLoader`, however its workers are started.

        Workers that are not forked get it pickled, which a lambda cannot be.

        Args:
            samples: images, or pairs of an image and its label, as a data set gives them.

        Returns:
            Images, or images and targets.

        >>> import torch
        >>> from mosaicaug import CutMix
        >>> images, targets = CutMix().collate([(torch.zeros(3, 8, 8), label) for label in range(4)])
        >>> images.shape, targets.labels_a.tolist()
        (torch.Size([4, 3, 8, 8]), [0, 1, 2, 3])
        """
        batch = default_collate(list(samples))
        return self(*batch) if isinstance(batch, list | tuple) else self(batch)

    def extra_repr(self) -> str:
        """Arguments for `repr`."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.settings)


class TileAugmentation(Augmentation):
    """Base of the augmentations that move an image's own tiles: labels stay, and single images are accepted."""

    def __init__(self, grid: int, *, p: float, per: Per, permutation: Permutation) -> None:
        super().__init__(p=p, per=per)
        check_choice(self.name, "permutation", permutation, Permutation)
        self.grid, self.permutation = grid, permutation

    def targets(self, plan: Plan, labels: Tensor, *, maps: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return ``labels``: tiles of the image itself leave them as they are."""
        return labels

    def _check_shape(self, shape: Sequence[int]) -> None:
        super()._check_shape(shape)
        if min(shape[-2:]) < self.grid:
            raise ValueError(
                f"{self}: needs images of at least {self.grid}x{self.grid} px, got {shape[-2]}x{shape[-1]}"
            )


class MixingAugmentation(Augmentation):
    """Base of the augmentations that mix each image with a partner, one permutation of the batch."""

    mixes = True
    settings: tuple[str, ...] = ("alpha", "num_classes", "p", "per")

    def __init__(self, name: str, alpha: float, *, num_classes: int | None, p: float, per: Per) -> None:
        super().__init__(p=p, per=per)
        if isinstance(alpha, bool) or not 0 < alpha < float("inf"):
            raise ValueError(f"{self.name}: {name} must be above 0, got {alpha}")
        if num_classes is not None:
            check_integer(self.name, "num_classes", num_classes, 1)
        self.num_classes = num_classes

    def targets(self, plan: Plan, labels: Tensor, *, maps: Tensor | None = None) -> Tensor | Targets:  # noqa: ARG002
        """Mix labels by pixel shares: ``Targets``, or soft labels ``[B, K]`` with ``num_classes`` or soft labels."""
        return mix_labels(plan, labels, num_classes=self.num_classes)
