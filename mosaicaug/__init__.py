"""Batched augmentations that rearrange or mix images: one plan, one kernel.

Examples:
    >>> import torch
    >>> from mosaicaug import CutMix, RecursiveMosaic
    >>> images, labels = torch.rand(8, 3, 64, 64), torch.arange(8)
    >>> mosaics = RecursiveMosaic(r=3)(images)
    >>> mixed, targets = CutMix(num_classes=8)(images, labels)
    >>> mixed.shape, targets.shape
    (torch.Size([8, 3, 64, 64]), torch.Size([8, 8]))
"""

import mosaicaug.operators  # noqa: F401 - registers the operator
from mosaicaug.annotations import Placed, apply_boxes, apply_keypoints, apply_masks
from mosaicaug.apply import apply
from mosaicaug.augmentation import Augmentation
from mosaicaug.backends.triton.table import PlanBuffer
from mosaicaug.compose import Compose, OneOf
from mosaicaug.config import show_config
from mosaicaug.plan import Plan
from mosaicaug.targets import Targets, class_activation_map, cross_entropy, mix_labels
from mosaicaug.transforms import CutMix, Jigsaw, MixUp, RecursiveMosaic, SnapMix

__version__ = "0.1.0"

__all__ = [
    "Augmentation",
    "Compose",
    "CutMix",
    "Jigsaw",
    "MixUp",
    "OneOf",
    "Placed",
    "Plan",
    "PlanBuffer",
    "RecursiveMosaic",
    "SnapMix",
    "Targets",
    "apply",
    "apply_boxes",
    "apply_keypoints",
    "apply_masks",
    "class_activation_map",
    "cross_entropy",
    "mix_labels",
    "show_config",
]
