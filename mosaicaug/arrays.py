"""Arrays of NumPy, OpenCV and albumentations, whose channels come last: augmented by the same plans as tensors.

Examples:
    >>> import numpy as np
    >>> from mosaicaug import CutMix, RecursiveMosaic
    >>> from mosaicaug.arrays import augment_array
    >>> mosaic = augment_array(RecursiveMosaic(r=2), np.zeros((32, 48, 3), np.uint8))
    >>> mosaic.shape
    (32, 48, 3)
    >>> images, soft = augment_array(CutMix(num_classes=10), np.zeros((4, 32, 48, 3), np.uint8), np.arange(4))
    >>> images.shape, soft.shape
    ((4, 32, 48, 3), torch.Size([4, 10]))
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from mosaicaug.apply import apply
from mosaicaug.augmentation import Augmentation
from mosaicaug.plan import Plan


def apply_array(images: Any, plan: Plan) -> Any:
    """Make the images that ``plan`` describes, of arrays whose channels come last.

    Args:
        images: ``[B, H, W, C]``, one image ``[H, W, C]`` or grey ``[H, W]`` where the plan has one; uint8 or floating.
        plan: for B images.

    Returns:
        An array like ``images``.

    Raises:
        TypeError: it is no array. ValueError: it does not fit the plan.

    >>> import numpy as np
    >>> from mosaicaug import Jigsaw
    >>> from mosaicaug.arrays import apply_array
    >>> aug = Jigsaw(2)
    >>> image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    >>> sorted(apply_array(image, aug.sample((1, 1, 4, 4))).flat) == list(range(16))
    True
    """
    return _to_array(apply(_to_batch("apply_array", images), plan), images)


def augment_array(
    augmentation: Augmentation,
    images: Any,
    labels: Any = None,
    *,
    maps: Tensor | None = None,
    generator: Generator | None = None,
) -> Any:
    """Augment arrays whose channels come last.

    Args:
        augmentation: any of `mosaicaug`.
        images: ``[B, H, W, C]``, or one image ``[H, W, C]`` or ``[H, W]`` where only tiles move.
        labels: as for the augmentation itself.
        maps: activation maps for SnapMix.
        generator: on the CPU; torch's default one if None.

    Returns:
        An array like ``images``; with ``labels`` that and the targets, which are torch's.

    Raises:
        TypeError: it is no array. ValueError: as the augmentation.
    """
    batch = _to_batch("augment_array", images)
    if labels is None:
        return _to_array(augmentation(batch, generator=generator), images)
    made, targets = augmentation(batch, labels, maps=maps, generator=generator)
    return _to_array(made, images), targets


def _to_batch(caller: str, images: Any) -> Tensor:
    """View of an array as ``[B, C, H, W]``; a copy where it runs backwards, which torch cannot view."""
    if not hasattr(images, "__array_interface__") or isinstance(images, Tensor):
        raise TypeError(f"{caller}: images must be an array of numbers, got {type(images).__name__}")
    if images.ndim not in (2, 3, 4):
        raise ValueError(f"{caller}: images must be [B, H, W, C], [H, W, C] or [H, W], got {list(images.shape)}")
    batch = torch.from_numpy(images if min(images.strides) >= 0 and images.flags.writeable else images.copy())
    batch = batch[None] if images.ndim < 4 else batch
    return batch[:, None] if images.ndim == 2 else batch.permute(0, 3, 1, 2)


def _to_array(made: Tensor, images: Any) -> Any:
    """Array of ``[B, C, H, W]`` in the form of ``images``."""
    array: Any = (made[:, 0] if images.ndim == 2 else made.permute(0, 2, 3, 1)).numpy()
    return array if images.ndim == 4 else array[0]
