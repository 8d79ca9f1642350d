"""HBP: Hierarchical Bilinear Pooling for Fine-Grained Visual Recognition (Yu et al., ECCV 2018, section 3)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmsi.models.backbones import Backbone
from pmsi.models.base import Logits, Network
from pmsi.models.bcnn import signed_sqrt


class HBP(Network):
    """Products of every two of the deepest maps in a wide space, pooled, normalised, joined and classified.

    The maps are those of the last blocks of the last stage, which are of one size: 160, 320 and 1280 channels on
    MobileNetV2 (no publication says), the last three blocks on ResNet-34 and 50 (as the port to ResNet-50).

    Args:
        backbone: with ``maps`` blocks or more in its last stage.
        num_classes: K.
        maps: how many of the deepest maps.
        width: of the wide space; the official 8192.

    Raises:
        ValueError: fewer than two maps, or the last stage has fewer blocks (ResNet-18 has two); ``width`` below 1.

    >>> from pmsi.models.backbones import make_mobilenet_v2
    >>> network = HBP(make_mobilenet_v2(), num_classes=20, width=64)
    >>> network.pairs, network.eval()(torch.rand(2, 3, 64, 64)).concat.shape
    ([(0, 1), (0, 2), (1, 2)], torch.Size([2, 20]))
    """

    # The official code (Caffe, VGG-16, 87.1 % on CUB) trains in two steps: the new layers (lr 1.0, weight decay 5e-6,
    # batch 32, 60,000 iterations, x0.25 four times), then all (lr 1e-3, weight decay 5e-4, batch 16, up to 200,000
    # iterations). A port to ResNet-50 takes lr 1.0 for 80 epochs, then 1e-2 for 100. As one run: the backbone frozen
    # for 80 of 180 epochs, both rates on one cosine.
    recipe: ClassVar[Mapping[str, Any]] = {
        "augmentation": "none",
        "progressive": False,
        "interaction": False,
        "lr_backbone": 1e-2,
        "lr_new": 1.0,
        "weight_decay": 5e-6,
        "epochs": 180,
        "freeze_epochs": 80,
    }

    def __init__(self, backbone: Backbone, num_classes: int, *, maps: int = 3, width: int = 8192) -> None:
        super().__init__(backbone, num_classes)
        widths = backbone.measure_blocks()[-1]
        if not 2 <= maps <= len(widths):
            raise ValueError(f"HBP: maps must lie in 2..{len(widths)}, the blocks of the last stage; got {maps}")
        if width < 1:
            raise ValueError(f"HBP: width must be 1 or more, got {width}")
        # One projection for each map, with bias, without batch norm or activation: U, V, S.
        self.projections = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in widths[-maps:])
        self.pairs = list(itertools.combinations(range(maps), 2))
        self.classifier = nn.Linear(len(self.pairs) * width, num_classes)

    def forward(self, images: Tensor) -> Logits:
        """``[B, 3, H, W]`` to logits."""
        maps = self.backbone.forward_blocks(images)[-1][-len(self.projections) :]
        wide = [project(x) for project, x in zip(self.projections, maps, strict=True)]  # [B, width, h, w] each
        # Section 3.3: P^T concat(U^T x * V^T y, U^T x * S^T z, V^T y * S^T z), summed over space before P.
        pooled = [(wide[i] * wide[j]).sum((2, 3), dtype=torch.float32) for i, j in self.pairs]
        return Logits((), self.classifier(torch.cat([F.normalize(signed_sqrt(x, eps=1e-10)) for x in pooled], 1)))
