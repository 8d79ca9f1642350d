"""Base classes of augmentations: draw a plan, apply it, mix the labels."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import default_collate

from mosaicaug import sampling
from mosaicaug.apply import apply
from mosaicaug.checks import check_chance, check_generator, check_images, check_kept_labels, convert_labels
from mosaicaug.plan import Plan
from mosaicaug.sampling import Per
from mosaicaug.settings import Setting, check_classes, check_per, check_permutation
from mosaicaug.stream import stream_plans
from mosaicaug.targets import Targets, mix_labels
from mosaicaug.zorder import Permutation

# A compiled graph holds numbers only; by this number it gets the augmentation whose draw it runs.
augmentations: WeakValueDictionary[int, Augmentation] = WeakValueDictionary()
_handles = itertools.count()
PROCESS = f"process {os.getpid()} of {time.time_ns()}"  # these numbers mean nothing in another one
# Every draw in a compiled graph declares that it writes this tensor, so that none overtakes another.
with torch.inference_mode(False):  # noqa: FBT003
    _order = torch.zeros((), device="cpu")


class Augmentation(nn.Module):
    """Base class of all augmentations: ``aug(images)``, or ``aug(images, labels)`` for images and targets.

    Images are ``[B, C, H, W]`` or video ``[B, T, C, H, W]`` (one plan per clip) of uint8 or any floating dtype; dtype,
    device and memory format are kept and the input is not changed. Draws come from torch's CPU generator
    (``torch.manual_seed``), or from ``generator=``. ``aug.last_plan`` is the plan of the last call.

    ``aug.eval()``, and so ``eval()`` of a network that holds it, switches it off until ``train()``: nothing is drawn,
    images come back untouched, plans move nothing, and targets give each image's own label all the weight.

    Settings (``aug.p = 0.5``) may be changed at any time: they are checked, and the next call follows, compiled or not.

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
    p = Setting(check_chance)
    per = Setting(check_per)

    def __init__(self, *, p: float, per: Per) -> None:
        super().__init__()
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
            TypeError: ``shape`` or ``generator`` is something else.
        """
        batch, size = self._read_shape(shape, generator)
        if not self.training:
            self._keep_choices([torch.zeros(batch, dtype=torch.int64, device="cpu")] * len(self._one_ofs))
            self.last_plan = Plan.identity(batch, size)
        elif torch.compiler.is_compiling():
            # What decides the shapes of the results is an argument, and so a part of what compilers keep on disk.
            exported = PROCESS if torch.compiler.is_exporting() else ""
            key = self._handle, exported, batch, *size, self.grid, len(self._one_ofs)
            *drawn, choices = torch.ops.mosaicaug.draw(*key, _order)
            self._keep_choices(choices)
            self.last_plan = Plan(size, *drawn)
        else:
            self.last_plan = sampling.draw_plainly(lambda: self.draw(batch, size, generator))
        return self.last_plan

    stream = stream_plans

    def _read_shape(self, shape: Sequence[int], generator: Generator | None) -> tuple[int, tuple[int, int]]:
        """Check both arguments of a draw; returns batch and size (height and width, px)."""
        if isinstance(shape, Tensor):
            raise TypeError(f"{self.name}: plans are drawn for a shape, got a tensor; pass images.shape")
        self._check_shape(shape)
        check_generator(self.name, generator)
        return 1 if len(shape) == 3 else shape[0], (shape[-2], shape[-1])

    def _keep_choices(self, choices: Sequence[Tensor] | Tensor) -> None:
        """Keep the members that every `mosaicaug.OneOf` within chose, one ``[B]`` each."""
        for number, one_of in enumerate(self._one_ofs):  # not by zip: a program with an empty split cannot be saved
            one_of.last_choice = choices[number]

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
            labels: integer ``[B]`` or soft ``[B, K]``, as a tensor, an array or lists; required where images are mixed.
                What only moves tiles gives back labels of any kind, one per image, as they are.
            maps: class activation maps ``[B, h, w]`` for SnapMix.
            generator: on the CPU; torch's default one if None.

        Raises:
            ValueError: labels are missing for a mixing augmentation, or do not fit the batch; images do not fit.
            TypeError: ``images`` is not a tensor; labels are no numbers, or annotations that would not follow.
        """
        check_images(self.name, images)
        if labels is None:
            if self.mixes and self.training:
                raise ValueError(
                    f"{self.name}: mixing images mixes labels too, got none; call it with (images, labels), "
                    "or use apply(images, aug.sample(images.shape)) for the images alone"
                )
            return self._follow(images, self.sample(images.shape, generator=generator))
        self._check_shape(images.shape)
        if images.ndim == 3 and not self.mixes:
            check_kept_labels(self.name, labels, None)
            return self.forward(images, generator=generator), labels
        labels = self._take_labels(labels, len(images), images.device)
        plan, targets = self.draw_with_labels(images, labels, maps=maps, generator=generator)
        return self._follow(images, plan), targets

    def draw_with_labels(
        self, images: Tensor, labels: Any, *, maps: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Plan, Any]:
        """Draw the plan of a batch and make its targets; in eval mode each image's own label has all the weight."""
        if not self.training:
            plan = self.sample(images.shape, generator=generator)
            return plan, mix_labels(plan, labels, num_classes=self.num_classes) if self.mixes else labels
        maps = self._resolve_maps(images, labels, maps)
        plan = self.sample(images.shape, generator=generator)
        return plan, self.targets(plan, labels, maps=maps)

    def _follow(self, images: Tensor, plan: Plan) -> Tensor:
        """Images that ``plan`` makes; in eval mode the images themselves."""
        if not self.training:
            return images
        return apply(images[None], plan)[0] if images.ndim == 3 else apply(images, plan)

    def _take_labels(self, labels: Any, batch: int, device: torch.device) -> Any:
        """Labels in the form that `targets` takes, checked."""
        return convert_labels(self.name, labels, batch, self.num_classes, device)

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
        """Stack samples and augment the batch: the ``collate_fn`` of a `DataLoader`; it can be pickled.

        Args:
            samples: images, or pairs of an image and its label, as a data set gives them.

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

    permutation = Setting(check_permutation)

    def __init__(self, *, p: float, per: Per, permutation: Permutation) -> None:
        super().__init__(p=p, per=per)
        self.permutation = permutation

    def targets(self, plan: Plan, labels: Tensor, *, maps: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return ``labels``: tiles of the image itself leave them as they are."""
        return labels

    def _take_labels(self, labels: Any, batch: int, device: torch.device) -> Any:  # noqa: ARG002
        check_kept_labels(self.name, labels.labels_a if isinstance(labels, Targets) else labels, batch)
        return labels

    def _check_shape(self, shape: Sequence[int]) -> None:
        super()._check_shape(shape)
        if min(shape[-2:]) < self.grid:
            raise ValueError(
                f"{self}: needs images of at least {self.grid}x{self.grid} px, got {shape[-2]}x{shape[-1]}"
            )
        if len(shape) > 3 and shape[0] * self.grid**2 >= 2**31:
            raise ValueError(f"{self}: a plan numbers fewer than 2**31 tiles, got {shape[0]} x {self.grid**2}")


class MixingAugmentation(Augmentation):
    """Base of the augmentations that mix each image with a partner, one permutation of the batch."""

    mixes = True
    settings: tuple[str, ...] = ("alpha", "num_classes", "p", "per")
    num_classes = Setting(check_classes)

    def __init__(self, *, num_classes: int | None, p: float, per: Per) -> None:
        super().__init__(p=p, per=per)
        self.num_classes = num_classes

    def targets(self, plan: Plan, labels: Tensor, *, maps: Tensor | None = None) -> Tensor | Targets:  # noqa: ARG002
        """Mix labels by pixel shares: ``Targets``, or soft labels ``[B, K]`` with ``num_classes`` or soft labels."""
        return mix_labels(plan, labels, num_classes=self.num_classes)
