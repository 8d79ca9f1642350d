"""B-CNN: Bilinear CNN Models for Fine-Grained Visual Recognition (Lin, RoyChowdhury and Maji, ICCV 2015, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from pmsi.models.backbones import Backbone
from pmsi.models.base import Logits, Network

_MAX_WIDTH = 512  # of VGG-16's last map: 262,144 bilinear features


class BCNN(Network):
    """Sum-pooled outer products of the last map with itself, signed square root, L2 norm, one linear layer.

    Both streams are one backbone, as in all re-implementations. On MobileNetV2 the last map of 1280 channels would make
    1.6 million features, 328 million weights for 200 classes: the 320 channels before it make 102,400, and the last
    convolution is left out. Those 320 are signed, so the root must be too.

    Args:
        backbone: of its last stage the deepest map of at most 512 channels is used.
        num_classes: K.
        width: use the last map instead, reduced to this many channels by a 1x1 convolution.

    Raises:
        ValueError: the last stage has no map so narrow (ResNet-50), and no ``width`` is given; or one below 1.

    >>> from pmsi.models.backbones import make_mobilenet_v2
    >>> network = BCNN(make_mobilenet_v2(), num_classes=20)
    >>> network.classifier.in_features, network.eval()(torch.rand(2, 3, 64, 64)).concat.shape
    (102400, torch.Size([2, 20]))
    """

    # The common re-implementation (HaoMood/bilinear-cnn, VGG-16, 84.2 % on CUB) trains in two steps: the linear layer
    # alone (lr 1.0, weight decay 1e-8, 55 epochs, batch 64, falling on plateaus), then all (lr 1e-2, weight decay 1e-5,
    # 25 epochs). The features have norm 1, hence the high rate of the linear layer. As one run: the backbone frozen for
    # 55 of 80 epochs, both rates on one cosine. Weight decay is that of the second step; batch 32 as the other rows.
    recipe: ClassVar[Mapping[str, Any]] = {
        "augmentation": "none",
        "progressive": False,
        "interaction": False,
        "lr_backbone": 1e-2,
        "lr_new": 1.0,
        "weight_decay": 1e-5,
        "epochs": 80,
        "freeze_epochs": 55,
    }

    def __init__(self, backbone: Backbone, num_classes: int, *, width: int | None = None) -> None:
        if width is not None and width < 1:
            raise ValueError(f"BCNN: width must be 1 or more, got {width}")
        super().__init__(_cut_to_narrow(backbone) if width is None else backbone, num_classes)
        channels = self.backbone.widths[-1]
        self.reduce = nn.Identity() if width is None else nn.Conv2d(channels, width, 1)
        self.classifier = nn.Linear((channels if width is None else width) ** 2, num_classes)

    def forward(self, images: Tensor) -> Logits:
        """``[B, 3, H, W]`` to logits."""
        [last] = self.backbone(images)
        x = self.reduce(last).flatten(2)  # [B, C, HW]
        bilinear = x @ x.transpose(1, 2) / x.shape[2]  # Eq. 1 and 2, the mean for the sum: [B, C, C]
        return Logits((), self.classifier(F.normalize(signed_sqrt(bilinear.flatten(1).float()))))


def signed_sqrt(x: Tensor, eps: float = 1e-5) -> Tensor:
    """``sign(x) * sqrt(|x| + eps)``, whose slope stays finite; 0 stays 0, with a slope of 0.

    >>> signed_sqrt(torch.tensor([-4.0, 0.0, 9.0]), eps=0)
    tensor([-2.,  0.,  3.])
    """
    return x.sign() * (x.abs() + eps).sqrt()


def _cut_to_narrow(backbone: Backbone) -> Backbone:
    if backbone.widths[-1] <= _MAX_WIDTH:
        return backbone
    widths = backbone.measure_blocks()[-1]
    narrow = [number for number, width in enumerate(widths) if width <= _MAX_WIDTH]
    if not narrow:
        raise ValueError(
            f"BCNN: maps of the last stage have {min(widths)} channels or more, and {_MAX_WIDTH} already make "
            f"{_MAX_WIDTH**2:,} features; give width={_MAX_WIDTH}, a 1x1 convolution before them"
        )
    return backbone.cut(len(widths) - 1 - narrow[-1])
