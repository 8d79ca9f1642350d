"""Replacement of ``timm.data.Mixup`` with these augmentations in it: one import line of a training script changes.

In timm's own script that line is ``from timm.data import ..., FastCollateMixup, Mixup, ...``. The script calls `Mixup`
on batches under ``--no-prefetcher``, and gives its prefetching loader `FastCollateMixup` otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from mosaicaug.augmentation import Augmentation
from mosaicaug.checks import check_chance, check_images, check_integer, convert_labels, convert_tensor
from mosaicaug.compose import OneOf
from mosaicaug.sampling import Per
from mosaicaug.transforms import CutMix, MixUp

_PER: dict[str, Per] = {"batch": "batch", "elem": "sample"}


class Mixup:
    """Mixing of images and labels as by ``timm.data.Mixup`` (timm 1.0), or by any augmentation of `mosaicaug`.

    Arguments, their defaults and the laws of images and targets are timm's. What differs: partners are one permutation
    of the batch, which may be of any size, where timm pairs the first image with the last; draws come from torch's CPU
    generator, so that ``torch.manual_seed`` governs; and the input is not written to.

    Args:
        mixup_alpha: of the Beta that MixUp's weight is drawn from; 0 for no MixUp.
        cutmix_alpha: of the Beta that CutMix's area is drawn from; 0 for no CutMix.
        cutmix_minmax: not offered; None.
        prob: chance that a batch, or an image with ``mode="elem"``, is mixed.
        switch_prob: chance of CutMix where both are on.
        mode: "batch" draws once for all, "elem" for every image; "pair" is not offered.
        correct_lam: weigh CutMix's labels by exact pixel shares; False keeps the drawn weight.
        label_smoothing: weight of the uniform distribution in every label.
        num_classes: K.
        multi_label: targets are dense ``[B, K]``, and smoothing draws each towards 0.5.
        augmentation: takes the place of what the arguments from ``mixup_alpha`` to ``correct_lam`` describe.

    ``mixup_enabled = False`` leaves images alone; targets are still smoothed.

    Raises:
        ValueError: an argument is out of range or not offered; targets do not fit the images or ``num_classes``.
        TypeError: ``augmentation`` is none of `mosaicaug`.

    Examples:
        >>> import torch
        >>> from mosaicaug import RecursiveMosaic
        >>> from mosaicaug.timm import Mixup
        >>> mixup_fn = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=10)
        >>> images, target = mixup_fn(torch.rand(8, 3, 32, 32), torch.arange(8))
        >>> target.shape, torch.allclose(target.sum(1), torch.ones(8))
        (torch.Size([8, 10]), True)
        >>> mosaic_fn = Mixup(num_classes=10, augmentation=RecursiveMosaic(r=3))
    """

    def __init__(
        self,
        mixup_alpha: float = 1.0,
        cutmix_alpha: float = 0.0,
        cutmix_minmax: Sequence[float] | None = None,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = "batch",
        correct_lam: bool = True,
        label_smoothing: float = 0.1,
        num_classes: int = 1000,
        multi_label: bool = False,
        *,
        augmentation: Augmentation | None = None,
    ) -> None:
        if cutmix_minmax is not None:
            raise ValueError(f"Mixup: cutmix_minmax is not offered, got {cutmix_minmax}; use cutmix_alpha")
        if mode not in _PER:
            raise ValueError(f"Mixup: mode must be 'batch' or 'elem', got {mode!r}; 'elem' mixes every image by itself")
        label_smoothing = check_chance("Mixup", "label_smoothing", label_smoothing)
        num_classes = check_integer("Mixup", "num_classes", num_classes, 1)
        if augmentation is None:
            augmentation = _make_augmentation(mixup_alpha, cutmix_alpha, prob, switch_prob, _PER[mode], correct_lam)
        if not isinstance(augmentation, Augmentation):
            raise TypeError(f"Mixup: augmentation must be one of mosaicaug, got {type(augmentation).__name__}")
        self.augmentation, self.mixup_enabled = augmentation, True
        self.label_smoothing, self.num_classes, self.multi_label = label_smoothing, num_classes, multi_label

    def __call__(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            x: images ``[B, C, H, W]`` of uint8 or any floating dtype.
            target: integer ``[B]`` or soft ``[B, K]``.

        Returns:
            Mixed images, and soft targets float32 ``[B, K]``.

        Raises:
            ValueError: targets do not fit the images or ``num_classes``.
        """
        check_images("Mixup", x)
        soft = self._smooth(target, len(x), x.device)
        if not self.mixup_enabled:
            return x, soft
        mixed: tuple[Tensor, Tensor] = self.augmentation(x, soft)
        return mixed

    def _smooth(self, target: Tensor, batch: int, device: torch.device) -> Tensor:
        """Soft targets with label smoothing, float32 ``[B, K]``."""
        dense = convert_tensor("Mixup", "target", target, device)
        dense = convert_labels("Mixup", dense.float() if self.multi_label else dense, batch, self.num_classes)
        if not dense.is_floating_point():
            zeros = torch.zeros(batch, self.num_classes, dtype=torch.float32, device=dense.device)
            dense = zeros.scatter(1, dense.long()[:, None], 1.0)
        centre = 0.5 if self.multi_label else 1 / self.num_classes
        return dense.float() * (1 - self.label_smoothing) + centre * self.label_smoothing


class FastCollateMixup(Mixup):
    """Mixing in the ``collate_fn`` of timm's prefetching loader, in place of ``timm.data.FastCollateMixup``.

    Arguments as `Mixup`. timm's loader reads and sets ``mixup_enabled`` of its own class only: ``--mixup-off-epoch``
    needs ``--no-prefetcher``.

    Examples:
        >>> import torch
        >>> from mosaicaug.timm import FastCollateMixup
        >>> collate_fn = FastCollateMixup(cutmix_alpha=1.0, num_classes=10)
        >>> images, target = collate_fn([(torch.zeros(3, 8, 8, dtype=torch.uint8), label) for label in range(4)])
        >>> images.dtype, target.shape
        (torch.uint8, torch.Size([4, 10]))
    """

    def __call__(self, batch: list[Any]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Collate samples ``(uint8 [C, H, W], label)`` to mixed uint8 ``[B, C, H, W]`` and targets ``[B, K]``."""
        return super().__call__(*default_collate(batch))


def _make_augmentation(
    mixup_alpha: float, cutmix_alpha: float, prob: float, switch_prob: float, per: Per, correct_lam: bool
) -> Augmentation:
    """Make the augmentation that timm's arguments describe."""
    if mixup_alpha <= 0 and cutmix_alpha <= 0:
        raise ValueError(f"Mixup: mixup_alpha or cutmix_alpha must be above 0, got {mixup_alpha} and {cutmix_alpha}")
    if cutmix_alpha <= 0:
        return MixUp(mixup_alpha, p=prob, per=per)
    cutmix = CutMix(cutmix_alpha, p=prob, per=per, true_area=correct_lam)
    if mixup_alpha <= 0:
        return cutmix
    return OneOf([cutmix, MixUp(mixup_alpha, p=prob, per=per)], [switch_prob, 1 - switch_prob], per=per)
