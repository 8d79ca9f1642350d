"""The baseline of RMG-PMSI's Table III: backbone, global average pooling, dropout and one linear layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from mosaicaug import Targets
from pmsi.models.backbones import Backbone
from pmsi.models.base import Logits, Network


class Baseline(Network):
    """One output: dropout and a linear layer on the mean of the last map.

    Args:
        backbone: its last stage is used.
        num_classes: K, 2 or more.
        dropout: before the linear layer, in training.

    >>> from pmsi.models.backbones import make_mobilenet_v2
    >>> Baseline(make_mobilenet_v2(), num_classes=200).eval()(torch.rand(2, 3, 64, 64)).concat.shape
    torch.Size([2, 200])
    """

    # The paper trains it as it trains its own network (section IV-A); dropout 0.2 is torchvision's MobileNetV2.
    recipe: ClassVar[Mapping[str, Any]] = {"augmentation": "none", "progressive": False, "interaction": False}

    def __init__(self, backbone: Backbone, num_classes: int, *, dropout: float = 0.2) -> None:
        super().__init__(backbone, num_classes)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(backbone.widths[-1], num_classes))

    def pool(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` to the mean of the last map, ``[B, D]``."""
        [last] = self.backbone(images)
        pooled: Tensor = last.mean((2, 3))
        return pooled

    def forward(self, images: Tensor) -> Logits:
        """``[B, 3, H, W]`` to logits."""
        return Logits((), self.classifier(self.pool(images)))


def check_hard_labels(caller: str, targets: Tensor | Targets) -> Tensor:
    """Integer labels ``[B]`` as they came, for methods that compare the classes of images.

    Raises:
        TypeError: the labels are mixed or soft.
    """
    if isinstance(targets, Targets) or targets.is_floating_point():
        kind = "Targets" if isinstance(targets, Targets) else f"{targets.dtype} {list(targets.shape)}"
        raise TypeError(
            f"{caller}: compares the classes of images, so it needs integer labels [B], got {kind}; "
            "train it without CutMix, MixUp or SnapMix"
        )
    return targets.long()
