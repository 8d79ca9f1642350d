"""Augmentations under their papers' names: `RecursiveMosaic`, `Jigsaw`, `CutMix`, `MixUp`, `SnapMix`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from torch import Generator, Tensor

from mosaicaug import sampling
from mosaicaug.apply import apply_each
from mosaicaug.augmentation import MixingAugmentation, TileAugmentation
from mosaicaug.checks import check_choice, check_images, check_integer
from mosaicaug.plan import Plan
from mosaicaug.sampling import Chain, Per
from mosaicaug.settings import Setting, WithSettings, check_alpha
from mosaicaug.targets import Targets, mix_labels
from mosaicaug.zorder import Permutation


class RecursiveMosaic(TileAugmentation):
    """Recursive Mosaic Generator of RMG-PMSI (Wu et al. 2021, section III-B).

    The image's 2x2 quadrants are shuffled, one of them is entered and its quadrants are shuffled, ``r`` times. Where
    ``2**r`` does not divide a side, a margin at the right and at the bottom stays where it is.

    Args:
        r: recursions; the smallest patch is ``H // 2**r`` px high. 0 leaves the image alone.
        p: chance that an image is augmented.
        per: "sample" draws for every image, "batch" (the published code) once for all.
        permutation: "uniform" over the 24 shuffles of four quadrants, or "cyclic", the six that the published code can
            make, which leave no tile in place.

    Raises:
        ValueError: an argument is out of range; images smaller than ``2**r`` px.
        TypeError: ``r`` is not an integer.

    Examples:
        >>> import torch
        >>> from mosaicaug import RecursiveMosaic
        >>> images, labels = RecursiveMosaic(r=3)(torch.rand(4, 3, 64, 64), torch.arange(4))
    """

    settings = ("r", "p", "per", "permutation")
    r = Setting(functools.partial(check_integer, low=0))

    def __init__(
        self, r: int = 3, *, p: float = 1.0, per: Per = "sample", permutation: Permutation = "uniform"
    ) -> None:
        super().__init__(p=p, per=per, permutation=permutation)
        self.r = r

    @property
    def grid(self) -> int:  # type: ignore[override]
        return int(2**self.r)

    @WithSettings
    def phases(
        make: Callable[..., RecursiveMosaic],  # noqa: N805 - the class, or what makes copies of an instance
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
            images: ``[B, C, H, W]``, ``[B, T, C, H, W]`` or ``[C, H, W]``.
            r: recursions of the first phase. Called on an instance, this and the settings below are the instance's.
            chain: "independent" (the published code) draws every phase anew; with "shared" (the paper's Fig. 3) the
                phases are steps of one recursion.
            p: chance that an image is augmented; ``per`` and ``permutation`` are also those of the class.
            per: "sample" or "batch".
            permutation: "uniform" or "cyclic".
            generator: on the CPU; torch's default one if None.

        Returns:
            ``r + 1`` tensors like ``images``.

        Examples:
            >>> import torch
            >>> from mosaicaug import RecursiveMosaic
            >>> [phase.shape[0] for phase in RecursiveMosaic.phases(torch.rand(2, 3, 32, 32), r=3)]
            [2, 2, 2, 2]
        """
        check_images("RecursiveMosaic.phases", images)
        aug = make(r, p=p, per=per, permutation=permutation)
        plans = aug.sample_phases(images.shape, chain=chain, generator=generator)
        if images.ndim == 3:
            return [phase[0] for phase in apply_each(images[None], plans)]
        return apply_each(images, plans)

    def sample_phases(
        self, shape: Sequence[int], *, chain: Chain = "independent", generator: Generator | None = None
    ) -> list[Plan]:
        """Draw the plans of `phases` for images of ``shape``: ``r + 1`` of them, that of r recursions first.

        Args:
            shape: of the images, ``[B, C, H, W]``, ``[B, T, C, H, W]`` or ``[C, H, W]``.
            chain: "independent" or "shared", as for `phases`.
            generator: on the CPU; torch's default one if None.
        """
        check_choice(self.name, "chain", chain, Chain)
        batch, size = self._read_shape(shape, generator)
        if not self.training:
            return [Plan.identity(batch, size)] * (self.r + 1)
        draw = functools.partial(sampling.mosaic_phases, batch, size, self.r, chain=chain, generator=generator)
        return sampling.draw_plainly(lambda: draw(p=self.p, per=self.per, permutation=self.permutation))

    def draw(self, batch: int, size: tuple[int, int], generator: Generator | None) -> Plan:
        """Draw ``r`` nested shuffles of quadrants."""
        draw = functools.partial(sampling.recursive_mosaic, batch, size, self.r, generator=generator)
        return draw(p=self.p, per=self.per, permutation=self.permutation)


class Jigsaw(TileAugmentation):
    """Shuffle of an image's own ``n`` x ``n`` tiles (PMG, Du et al. 2020, section 3.3).

    Where ``n`` does not divide a side, a margin at the right and at the bottom stays where it is.

    Args:
        n: tiles per side.
        p: chance that an image is augmented.
        per: "sample" draws for every image, "batch" once for all.
        permutation: "uniform", or "cyclic": one random cycle through all tiles, the law of the published code.

    Raises:
        ValueError: an argument is out of range; images smaller than ``n`` px.
        TypeError: ``n`` is not an integer.

    Examples:
        >>> import torch
        >>> from mosaicaug import Jigsaw
        >>> Jigsaw(4)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 3, 32, 32])
    """

    settings = ("n", "p", "per", "permutation")
    n = Setting(functools.partial(check_integer, low=1))

    def __init__(
        self, n: int = 4, *, p: float = 1.0, per: Per = "sample", permutation: Permutation = "uniform"
    ) -> None:
        super().__init__(p=p, per=per, permutation=permutation)
        self.n = n

    @property
    def grid(self) -> int:  # type: ignore[override]
        return self.n

    def draw(self, batch: int, size: tuple[int, int], generator: Generator | None) -> Plan:
        """Draw a permutation of the tiles."""
        draw = functools.partial(sampling.jigsaw, batch, size, self.n, generator=generator)
        return draw(p=self.p, per=self.per, permutation=self.permutation)


class CutMix(MixingAugmentation):
    """Replacement of a box of each image by the same box of a partner (CutMix, Yun et al. 2019).

    Args:
        alpha: of the Beta(alpha, alpha) that one minus the box's relative area is drawn from.
        num_classes: K, to get soft labels ``[B, K]`` instead of ``Targets``.
        p: chance that an image is augmented.
        per: "sample" draws a box for every image, "batch" one for all; partners differ per image in either case.
        true_area: weigh labels by exact pixel shares; False keeps the drawn weight, though the box was clipped.

    Raises:
        ValueError: an argument is out of range; labels are missing or do not fit.

    Examples:
        >>> import torch
        >>> from mosaicaug import CutMix
        >>> images, targets = CutMix(alpha=1.0)(torch.rand(4, 3, 32, 32), torch.arange(4))
        >>> torch.all(targets.weight_a + targets.weight_b == 1).item()
        True
    """

    settings = ("alpha", "num_classes", "p", "per", "true_area")
    alpha = Setting(check_alpha)

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        num_classes: int | None = None,
        p: float = 1.0,
        per: Per = "sample",
        true_area: bool = True,
    ) -> None:
        super().__init__(num_classes=num_classes, p=p, per=per)
        self.alpha, self.true_area = alpha, true_area

    def draw(self, batch: int, size: tuple[int, int], generator: Generator | None) -> Plan:
        """Draw one box per image, and partners."""
        return sampling.cutmix(
            batch, size, self.alpha, p=self.p, per=self.per, true_area=self.true_area, generator=generator
        )


class MixUp(MixingAugmentation):
    """Blend of each image with a partner (mixup, Zhang et al. 2018).

    Args:
        alpha: of the Beta(alpha, alpha) that the weight is drawn from.
        num_classes: K, to get soft labels ``[B, K]`` instead of ``Targets``.
        p: chance that an image is augmented.
        per: "sample" draws a weight for every image, "batch" one for all; partners differ per image in either case.

    Raises:
        ValueError: an argument is out of range; labels are missing or do not fit.

    Examples:
        >>> import torch
        >>> from mosaicaug import MixUp
        >>> images, soft = MixUp(alpha=0.2, num_classes=10)(torch.rand(4, 3, 32, 32), torch.arange(4))
        >>> soft.shape
        torch.Size([4, 10])
    """

    alpha = Setting(check_alpha)

    def __init__(
        self, alpha: float = 1.0, *, num_classes: int | None = None, p: float = 1.0, per: Per = "sample"
    ) -> None:
        super().__init__(num_classes=num_classes, p=p, per=per)
        self.alpha = alpha

    def draw(self, batch: int, size: tuple[int, int], generator: Generator | None) -> Plan:
        """Draw one weight per image, and partners."""
        return sampling.mixup(batch, size, self.alpha, p=self.p, per=self.per, generator=generator)


class SnapMix(MixingAugmentation):
    """Box of a partner resampled into another box of the image (SnapMix, Huang et al. 2021); semantic label weights.

    Weights are the class activation maps' mass that was covered and that came in; they need not add up to 1. Two
    images of one class both get the sum of their weights, and an image with a constant map falls back to areas, as in
    the published code.

    Args:
        beta: of the Beta(beta, beta) that one minus each box's relative area is drawn from.
        num_classes: K, to get soft labels ``[B, K]`` instead of ``Targets``.
        p: chance that an image is augmented.
        per: "sample" draws boxes for every image, "batch" once for all; partners differ per image in either case.
        cam: ``cam(images, labels) -> maps [B, h, w]``, called when no ``maps=`` are passed; `class_activation_map`
            makes them from features and a linear classifier.

    Raises:
        ValueError: an argument is out of range; labels or maps are missing or do not fit.

    Examples:
        >>> import torch
        >>> from mosaicaug import SnapMix
        >>> images, maps = torch.rand(4, 3, 32, 32), torch.rand(4, 7, 7)
        >>> images, targets = SnapMix(beta=5.0)(images, torch.arange(4), maps=maps)
    """

    settings = ("beta", "num_classes", "p", "per")
    beta = Setting(check_alpha)

    def __init__(
        self,
        beta: float = 5.0,
        *,
        num_classes: int | None = None,
        p: float = 1.0,
        per: Per = "sample",
        cam: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(num_classes=num_classes, p=p, per=per)
        self.beta, self.cam = beta, cam

    def targets(self, plan: Plan, labels: Tensor, *, maps: Tensor | None = None) -> Tensor | Targets:
        """Mix labels by semantic weights from ``maps`` ``[B, h, w]``; otherwise as `CutMix`.

        Raises:
            ValueError: ``maps`` are missing or do not fit.
        """
        if maps is None:
            raise ValueError("SnapMix: needs class activation maps [B, h, w]; pass maps=, or cam= when building it")
        return mix_labels(plan, labels, maps=maps, num_classes=self.num_classes)

    def draw(self, batch: int, size: tuple[int, int], generator: Generator | None) -> Plan:
        """Draw two boxes per image, and partners."""
        return sampling.snapmix(batch, size, self.beta, p=self.p, per=self.per, generator=generator)

    def _resolve_maps(self, images: Tensor, labels: Tensor, maps: Tensor | None) -> Tensor | None:
        if maps is None and self.cam is not None:
            maps = self.cam(images, labels)
        if not isinstance(maps, Tensor) or maps.ndim != 3 or len(maps) != len(images):
            got = list(maps.shape) if isinstance(maps, Tensor) else "none" if maps is None else type(maps).__name__
            raise ValueError(
                f"SnapMix: needs class activation maps [{len(images)}, h, w], got {got}; "
                "pass maps=, or cam= when building it"
            )
        return maps
