"""The augmentations by their papers' names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from torch import Generator, Tensor

from mosaicaug import sampling as sample
from mosaicaug.apply import apply_each
from mosaicaug.augmentation import Augmentation
from mosaicaug.checks import check_choice, check_integer
from mosaicaug.plan import Plan
from mosaicaug.sampling import Chain, Per
from mosaicaug.targets import Targets, mix_labels
from mosaicaug.zorder import Permutation


class _Tiles(Augmentation):
    """Moves an image's own tiles, so labels stay; a single image ``[C, H, W]`` will do."""

    def __init__(self, grid: int, *, p: float, per: Per, permutation: Permutation) -> None:
        super().__init__(p=p, per=per)
        check_choice(self.name, "permutation", permutation, Permutation)
        self.grid, self.permutation = grid, permutation

    def targets(self, plan: Plan, labels: Tensor, *, maps: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """``labels``, unchanged."""
        return labels

    def check_shape(self, shape: Sequence[int]) -> None:
        super().check_shape(shape)
        if min(shape[-2:]) < self.grid:
            raise ValueError(
                f"{self}: needs images of at least {self.grid}x{self.grid} px, got {shape[-2]}x{shape[-1]}"
            )

    @property
    def options(self) -> dict[str, Any]:
        """What the draw depends on besides the grid."""
        return {"p": self.p, "per": self.per, "permutation": self.permutation}


class RecursiveMosaic(_Tiles):
    """Recursive Mosaic Generator of RMG-PMSI (Wu et al. 2021, section III-B).

    The image's 2x2 quadrants are shuffled, one of them is entered and its quadrants are shuffled, ``r`` times.

    Args:
        r: recursions; the smallest patch is ``H // 2**r`` px high. 0 leaves the image alone.
        p: chance that an image is touched.
        per: "sample" draws for every image, "batch" (the published code) once for all.
        permutation: "uniform" over the 24 shuffles of four quadrants, or "cyclic", the six that the published code can
            make, which leave no tile in place.

    Raises:
        ValueError: an argument is out of range; images smaller than ``2**r`` px.
        TypeError: ``r`` is not an integer.

    >>> images, labels = torch.rand(4, 3, 64, 64), torch.arange(4)
    >>> images, labels = RecursiveMosaic(r=3)(images, labels)
    """

    settings = ("r", "p", "per", "permutation")

    def __init__(
        self, r: int = 3, *, p: float = 1.0, per: Per = "sample", permutation: Permutation = "uniform"
    ) -> None:
        check_integer(type(self).__name__, "r", r, 0)
        super().__init__(2**r, p=p, per=per, permutation=permutation)
        self.r = r
        # On an instance, `phases` has the instance's settings.
        self.phases = functools.partial(type(self).phases, r=r, **self.options)  # type: ignore[method-assign]

    @classmethod
    def phases(
        cls,
        images: Tensor,
        r: int = 3,
        *,
        chain: Chain = "independent",
        p: float = 1.0,
        per: Per = "sample",
        permutation: Permutation = "uniform",
        generator: Generator | None = None,
    ) -> list[Tensor]:
        """Inputs of all phases of progressive training: mosaics of r, r-1, ..., 1 recursions and the image itself.

        Args:
            images: as for calling the augmentation.
            r: recursions of the first phase.
            chain: "independent" (the published code) draws every phase anew; with "shared" (the paper's Fig. 3) the
                phases are steps of one recursion.
            p, per, permutation, generator: as for the augmentation.

        >>> [phase.shape[0] for phase in RecursiveMosaic.phases(torch.rand(2, 3, 32, 32), r=3)]
        [2, 2, 2, 2]
        """
        aug = cls(r, p=p, per=per, permutation=permutation)
        plans = aug.sample_phases(images.shape, chain=chain, generator=generator)
        if images.ndim == 3:
            return [phase[0] for phase in apply_each(images[None], plans)]
        return apply_each(images, plans)

    def sample_phases(
        self, shape: Sequence[int], *, chain: Chain = "independent", generator: Generator | None = None
    ) -> list[Plan]:
        """The plans of `phases`, for images of ``shape``."""
        check_choice(self.name, "chain", chain, Chain)
        self.check_shape(shape)
        batch = 1 if len(shape) == 3 else shape[0]
        size = (shape[-2], shape[-1])
        return sample.mosaic_phases(batch, size, self.r, chain=chain, generator=generator, **self.options)

    def draw(self, batch: int, size: tuple[int, int], generator: Generator | None) -> Plan:
        return sample.recursive_mosaic(batch, size, self.r, generator=generator, **self.options)


class Jigsaw(_Tiles):
    """Shuffle of an image's own ``n`` x ``n`` tiles (PMG, Du et al. 2020, section 3.3).

    Args:
        n: tiles per side.
        p, per: as `RecursiveMosaic`.
        permutation: "uniform", or "cyclic": one random cycle through all tiles, the law of the published code.

    Raises:
        ValueError: an argument is out of range; images smaller than ``n`` px.
        TypeError: ``n`` is not an integer.

    >>> Jigsaw(4)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 3, 32, 32])
    """

    settings = ("n", "p", "per", "permutation")

    def __init__(
        self, n: int = 4, *, p: float = 1.0, per: Per = "sample", permutation: Permutation = "uniform"
    ) -> None:
        check_integer(type(self).__name__, "n", n, 1)
        super().__init__(n, p=p, per=per, permutation=permutation)
        self.n = n

    def draw(self, batch: int, size: tuple[int, int], generator: Generator | None) -> Plan:
        return sample.jigsaw(batch, size, self.n, generator=generator, **self.options)


class _Mixing(Augmentation):
    """Brings in a partner, one permutation of the batch, and returns ``Targets`` or soft labels."""

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
        """``Targets``, or soft labels ``[B, K]`` if ``num_classes`` was given or the labels are soft."""
        return mix_labels(plan, labels, num_classes=self.num_classes)


class CutMix(_Mixing):
    """A box of each image is replaced by the same box of a partner (Yun et al. 2019).

    Args:
        alpha: of the Beta(alpha, alpha) that one minus the box's relative area is drawn from.
        num_classes: K, to get soft labels ``[B, K]`` instead of ``Targets``.
        p, per: as `RecursiveMosaic`; partners differ per image in either case.
        true_area: weigh labels by exact pixel shares; False keeps the drawn weight, though the box was clipped.

    Raises:
        ValueError: an argument is out of range; labels are missing or do not fit.

    >>> images, targets = CutMix(alpha=1.0)(torch.rand(4, 3, 32, 32), torch.arange(4))
    >>> torch.all(targets.weight_a + targets.weight_b == 1).item()
    True
    """

    settings = ("alpha", "num_classes", "p", "per", "true_area")

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        num_classes: int | None = None,
        p: float = 1.0,
        per: Per = "sample",
        true_area: bool = True,
    ) -> None:
        super().__init__("alpha", alpha, num_classes=num_classes, p=p, per=per)
        self.alpha, self.true_area = float(alpha), true_area

    def draw(self, batch: int, size: tuple[int, int], generator: Generator | None) -> Plan:
        return sample.cutmix(
            batch, size, self.alpha, p=self.p, per=self.per, true_area=self.true_area, generator=generator
        )


class MixUp(_Mixing):
    """Each image is blended with a partner (Zhang et al. 2018).

    Args:
        alpha: of the Beta(alpha, alpha) that the weight is drawn from.
        num_classes, p, per: as `CutMix`.

    Raises:
        ValueError: an argument is out of range; labels are missing or do not fit.

    >>> images, soft = MixUp(alpha=0.2, num_classes=10)(torch.rand(4, 3, 32, 32), torch.arange(4))
    >>> soft.shape
    torch.Size([4, 10])
    """

    def __init__(
        self, alpha: float = 1.0, *, num_classes: int | None = None, p: float = 1.0, per: Per = "sample"
    ) -> None:
        super().__init__("alpha", alpha, num_classes=num_classes, p=p, per=per)
        self.alpha = float(alpha)

    def draw(self, batch: int, size: tuple[int, int], generator: Generator | None) -> Plan:
        return sample.mixup(batch, size, self.alpha, p=self.p, per=self.per, generator=generator)


class SnapMix(_Mixing):
    """A box of a partner is resampled into another box; labels by semantic share (Huang et al. 2021).

    Weights are the class activation maps' mass that was covered and that came in; they need not add up to 1. Two
    images of one class both get the sum of their weights, and an image with a constant map falls back to areas, as in
    the published code.

    Args:
        beta: of the Beta(beta, beta) that one minus each box's relative area is drawn from.
        num_classes, p, per: as `CutMix`.
        cam: ``cam(images, labels) -> maps [B, h, w]``, called when no ``maps=`` are passed; `class_activation_map`
            makes them from features and a linear classifier.

    Raises:
        ValueError: an argument is out of range; labels or maps are missing or do not fit.

    >>> images, maps = torch.rand(4, 3, 32, 32), torch.rand(4, 7, 7)
    >>> images, targets = SnapMix(beta=5.0)(images, torch.arange(4), maps=maps)
    """

    settings = ("beta", "num_classes", "p", "per")

    def __init__(
        self,
        beta: float = 5.0,
        *,
        num_classes: int | None = None,
        p: float = 1.0,
        per: Per = "sample",
        cam: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__("beta", beta, num_classes=num_classes, p=p, per=per)
        self.beta, self.cam = float(beta), cam

    def targets(self, plan: Plan, labels: Tensor, *, maps: Tensor | None = None) -> Tensor | Targets:
        """Semantic weights from ``maps``; as `CutMix` otherwise."""
        if maps is None:
            raise ValueError("SnapMix: needs class activation maps [B, h, w]; pass maps=, or cam= when building it")
        return mix_labels(plan, labels, maps=maps, num_classes=self.num_classes)

    def draw(self, batch: int, size: tuple[int, int], generator: Generator | None) -> Plan:
        return sample.snapmix(batch, size, self.beta, p=self.p, per=self.per, generator=generator)

    def find_maps(self, images: Tensor, labels: Tensor, maps: Tensor | None) -> Tensor | None:
        if maps is None and self.cam is not None:
            maps = self.cam(images, labels)
        if maps is None or maps.ndim != 3 or len(maps) != len(images):
            got = "none" if maps is None else list(maps.shape)
            raise ValueError(
                f"SnapMix: needs class activation maps [{len(images)}, h, w], got {got}; "
                "pass maps=, or cam= when building it"
            )
        return maps
