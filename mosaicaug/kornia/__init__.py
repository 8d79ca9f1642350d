"""Kornia operations of the five augmentations, for Kornia 0.9's containers or by themselves.

Masks, boxes and keypoints follow the pixels in Kornia's own ``AugmentationSequential``, ``ImageSequential`` and
``VideoSequential``, and any number of these operations may stand in one container. Labels are what Kornia's containers
keep from their operations: `AugmentationSequential` here is Kornia's, but for its "class" key, which goes along.

Examples:
    >>> import torch
    >>> import kornia.augmentation as K
    >>> from mosaicaug.kornia import AugmentationSequential, RandomCutMix, RandomMixUp, RandomRecursiveMosaic
    >>> pipeline = AugmentationSequential(
    ...     K.RandomHorizontalFlip(),
    ...     RandomRecursiveMosaic(r=2, p=0.5),
    ...     RandomCutMix(num_classes=10),
    ...     RandomMixUp(num_classes=10),
    ...     data_keys=["input", "mask", "class"],
    ... )
    >>> images, masks, labels = torch.rand(8, 3, 64, 64), torch.randint(0, 5, (8, 1, 64, 64)), torch.arange(8)
    >>> images, masks, soft = pipeline(images, masks, labels)
    >>> soft.shape
    torch.Size([8, 10])

- Draws are those of `mosaicaug`, from torch's CPU generator: one seed, one result, with or without Kornia. ``p`` is
  applied in that draw, once, and ``same_on_batch=True`` is ``per="batch"``.
- uint8 and every floating dtype, contiguous or channels_last, come back as they came. Kornia's own operations take
  floating images only: convert before them.
- An operation that mixes refuses images without labels, unless it was built with ``data_keys=`` that name no "class",
  such as ``["input", "mask"]``. That is its way into Kornia's own containers; what it did to labels is
  ``operation.transform_classes(labels, operation._params)``.
- Labels become `Targets`, or soft labels with ``num_classes=``, which a second operation that mixes needs to find.
- Boxes keep their slots, each as its largest piece, and so do keypoints; mixing appends the partner's. Where nothing is
  left boxes are 0 and keypoints NaN. ``last_boxes`` and ``last_keypoints`` (`Placed`) say which one each was:
  ``operation.last_boxes.take(box_labels)``.
- The plan is in ``operation._params``, as tensors, and in ``operation.last_plan``: `apply_boxes` gives all pieces by it
  and ``last_plan.invert()`` takes tiles back, which a container's ``inverse`` leaves where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

from torch import Tensor

from mosaicaug.kornia.container import AugmentationSequential
from mosaicaug.kornia.operation import Operation, Options
from mosaicaug.transforms import CutMix, Jigsaw, MixUp, RecursiveMosaic, SnapMix
from mosaicaug.zorder import Permutation

__all__ = [
    "AugmentationSequential",
    "RandomCutMix",
    "RandomJigsaw",
    "RandomMixUp",
    "RandomRecursiveMosaic",
    "RandomSnapMix",
]


class RandomRecursiveMosaic(Operation):
    """`mosaicaug.RecursiveMosaic` for Kornia: quadrants shuffled within quadrants (Wu et al. 2021, section III-B).

    Args:
        r: recursions; the smallest patch is ``H // 2**r`` px high.
        permutation: "uniform" over the 24 shuffles of four quadrants, or "cyclic", the published code's six.

    Keyword Args:
        p (float): chance that an image is augmented, 1 by default.
        same_on_batch (bool): one draw for all images.
        keepdim (bool): a single image ``[C, H, W]`` stays one.
        data_keys (Sequence[str] | None): kinds of the inputs of a call without ``data_keys=``; by default ["input"].

    Raises:
        ValueError, TypeError: an argument is out of range; images smaller than ``2**r`` px.

    Examples:
        >>> import torch
        >>> from mosaicaug.kornia import RandomRecursiveMosaic
        >>> RandomRecursiveMosaic(r=3, p=0.5)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, r: int = 3, *, permutation: Permutation = "uniform", **options: Unpack[Options]) -> None:
        super().__init__(RecursiveMosaic(r, permutation=permutation), **options)


class RandomJigsaw(Operation):
    """`mosaicaug.Jigsaw` for Kornia: ``n`` x ``n`` tiles shuffled (Du et al. 2020, section 3.3); any image size.

    Args:
        n: tiles per side.
        permutation: "uniform", or "cyclic", which leaves no tile in place.

    Keyword Args:
        p (float): chance that an image is augmented, 1 by default.
        same_on_batch (bool): one draw for all images.
        keepdim (bool): a single image ``[C, H, W]`` stays one.
        data_keys (Sequence[str] | None): kinds of the inputs of a call without ``data_keys=``; by default ["input"].

    Raises:
        ValueError, TypeError: an argument is out of range; images smaller than ``n`` px.

    Examples:
        >>> import torch
        >>> from mosaicaug.kornia import RandomJigsaw
        >>> jigsaw, images = RandomJigsaw(n=3), torch.rand(2, 3, 32, 32)
        >>> torch.equal(jigsaw(images), jigsaw(images, params=jigsaw._params))
        True
    """

    def __init__(self, n: int = 4, *, permutation: Permutation = "uniform", **options: Unpack[Options]) -> None:
        super().__init__(Jigsaw(n, permutation=permutation), **options)


class RandomCutMix(Operation):
    """`mosaicaug.CutMix` for Kornia: a box replaced by a partner's (Yun et al. 2019).

    Args:
        alpha: of the Beta(alpha, alpha) that one minus the box's relative area is drawn from.
        num_classes: K, to get soft labels ``[B, K]`` instead of `Targets`.
        true_area: weigh labels by exact pixel shares; False keeps the drawn weight, though the box was clipped.

    Keyword Args:
        p (float): chance that an image is augmented, 1 by default.
        same_on_batch (bool): one draw for all images; partners differ per image in either case.
        keepdim (bool): a single image ``[C, H, W]`` stays one.
        data_keys (Sequence[str] | None): kinds of the inputs of a call without ``data_keys=``; by default
            ["input", "class"]. Without "class" it mixes images without their labels.

    Raises:
        ValueError: an argument is out of range; labels are missing or do not fit.

    Examples:
        >>> import torch
        >>> from mosaicaug.kornia import RandomCutMix
        >>> images, targets = RandomCutMix()(torch.rand(4, 3, 32, 32), torch.arange(4))
        >>> torch.all(targets.weight_a + targets.weight_b == 1).item()
        True
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        num_classes: int | None = None,
        true_area: bool = True,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(CutMix(alpha, num_classes=num_classes, true_area=true_area), **options)


class RandomMixUp(Operation):
    """`mosaicaug.MixUp` for Kornia: images blended with a partner (Zhang et al. 2018).

    Args:
        alpha: of the Beta(alpha, alpha) that the weight is drawn from.
        num_classes: K, to get soft labels ``[B, K]`` instead of `Targets`.

    Keyword Args:
        p (float): chance that an image is augmented, 1 by default.
        same_on_batch (bool): one draw for all images; partners differ per image in either case.
        keepdim (bool): a single image ``[C, H, W]`` stays one.
        data_keys (Sequence[str] | None): kinds of the inputs of a call without ``data_keys=``; by default
            ["input", "class"].

    Raises:
        ValueError: an argument is out of range; labels are missing or do not fit.

    Examples:
        >>> import torch
        >>> from mosaicaug.kornia import RandomMixUp
        >>> images, soft = RandomMixUp(0.2, num_classes=10)(torch.rand(4, 3, 32, 32), torch.arange(4))
        >>> soft.shape
        torch.Size([4, 10])
    """

    def __init__(self, alpha: float = 1.0, *, num_classes: int | None = None, **options: Unpack[Options]) -> None:
        super().__init__(MixUp(alpha, num_classes=num_classes), **options)


class RandomSnapMix(Operation):
    """`mosaicaug.SnapMix` for Kornia: a partner's box in another box, labels by semantic share (Huang et al. 2021).

    Args:
        beta: of the Beta(beta, beta) that one minus each box's relative area is drawn from.
        cam: ``cam(images, labels) -> maps [B, h, w]``, called on the images that come in; calls of the operation itself
            take ``maps=`` too.
        num_classes: K, to get soft labels ``[B, K]`` instead of `Targets`.

    Keyword Args:
        p (float): chance that an image is augmented, 1 by default.
        same_on_batch (bool): one draw for all images; partners differ per image in either case.
        keepdim (bool): a single image ``[C, H, W]`` stays one.
        data_keys (Sequence[str] | None): kinds of the inputs of a call without ``data_keys=``; by default
            ["input", "class"].

    Raises:
        ValueError: an argument is out of range; labels or maps are missing or do not fit.

    Examples:
        >>> import torch
        >>> from mosaicaug.kornia import RandomSnapMix
        >>> snapmix = RandomSnapMix(cam=lambda images, labels: images.mean(1))
        >>> images, targets = snapmix(torch.rand(4, 3, 32, 32), torch.arange(4))
    """

    def __init__(
        self,
        beta: float = 5.0,
        *,
        cam: Callable[[Tensor, Tensor], Tensor] | None = None,
        num_classes: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(SnapMix(beta, num_classes=num_classes, cam=cam), **options)
