"""CNL: Associating Multi-Scale Receptive Fields for Fine-Grained Recognition (Ye et al., ICIP 2020, section 2).

The block follows the paper's equation. The published code lacks a transpose in it: the attended values ``[hw, planes]``
are reshaped to ``[planes, h, w]`` in memory order, which mixes places and channels, and the published accuracies were
made so. ``published_reshape=True`` does the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmsi.models.backbones import Backbone
from pmsi.models.base import Logits, Network

# Blocks that respond, by stage, and the one of the last stage that asks, counted from each stage's end; as published
# for ResNet-50 (layer2[1], [3]; layer3[1], [3], [5]; layer4[1]). Stages with fewer blocks have fewer.
_RESPONDING = {2: (-3, -1), 3: (-5, -3, -1)}
_ASKING = -2


class CrossLayerNonLocal(nn.Module):
    """Attention of a deep map over shallower ones: a residual for it, 0 at initialisation.

    Args:
        query: channels of the deep map.
        responses: channels of each shallower map.
        planes: channels of keys and values; by default half the query's, at most the published 256.
        published_reshape: reshape attended values without the transpose, as the published code does by mistake.

    Raises:
        ValueError: ``planes`` below 1.

    >>> module = CrossLayerNonLocal(8, [4, 6])
    >>> module(torch.rand(2, 8, 3, 3), [torch.rand(2, 4, 6, 6), torch.rand(2, 6, 5, 5)]).shape
    torch.Size([2, 8, 3, 3])
    """

    def __init__(
        self, query: int, responses: list[int], planes: int | None = None, *, published_reshape: bool = False
    ) -> None:
        super().__init__()
        self.published_reshape = published_reshape
        planes = min(query // 2, 256) if planes is None else planes
        if planes < 1:
            raise ValueError(f"CNL: planes must be 1 or more, got {planes}")
        self.query = nn.Conv2d(query, planes, 1, bias=False)
        self.keys = nn.ModuleList(nn.Conv2d(channels, planes, 1, bias=False) for channels in responses)
        self.values = nn.ModuleList(nn.Conv2d(channels, planes, 1, bias=False) for channels in responses)
        self.out = nn.Conv2d(planes, query, 1, bias=False)  # shared by all responses
        self.norms = nn.ModuleList(nn.BatchNorm2d(query) for _ in responses)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.zeros_(module.weight)

    def forward(self, query: Tensor, responses: list[Tensor]) -> Tensor:
        """``query`` ``[B, C, h, w]`` and any number of maps ``[B, C', h', w']`` to ``[B, C, h, w]``."""
        asked, residual = _flatten_places(self.query(query)), torch.zeros_like(query)
        for key, value, norm, response in zip(self.keys, self.values, self.norms, responses, strict=True):
            # softmax(q k^T / sqrt(planes)) v over all places of the response
            found = F.scaled_dot_product_attention(
                asked, _flatten_places(key(response)), _flatten_places(value(response))
            )
            found = found[:, 0]  # [B, hw, planes]
            if not self.published_reshape:
                found = found.transpose(1, 2)
            found = found.reshape(len(query), -1, *query.shape[2:])  # [B, planes, h, w]
            residual = residual + norm(self.out(found))
        return residual


class CNL(Network):
    """The baseline with a cross-layer non-local module as a residual before the last block.

    On MobileNetV2 the 320 channels before the last convolution ask, and of the maps of 1/8 and 1/16 five respond: 32,
    32, 64, 96 and 96 channels, the places of ResNet-50 counted from each stage's end (no publication says).

    Args:
        backbone: its third to fifth stages are used.
        num_classes: K.
        planes, published_reshape: see `CrossLayerNonLocal`.
        dropout: before the linear layer, in training.

    Raises:
        ValueError: a timm backbone, whose blocks are not known.

    >>> from pmsi.models.backbones import make_mobilenet_v2
    >>> CNL(make_mobilenet_v2(), num_classes=200).eval()(torch.rand(2, 3, 64, 64)).concat.shape
    torch.Size([2, 200])
    """

    # The published code (ResNet-50, 85.6 % on CUB): SGD with one rate for all layers, x0.1 at epochs 31, 51 and 71;
    # here a cosine in their place. It is no row of RMG-PMSI's Table V.
    recipe: ClassVar[Mapping[str, Any]] = {
        "augmentation": "none",
        "progressive": False,
        "interaction": False,
        "lr_backbone": 1e-2,
        "lr_new": 1e-2,
        "weight_decay": 1e-4,
        "epochs": 100,
        "freeze_epochs": 0,
    }

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        planes: int | None = None,
        dropout: float = 0.5,
        published_reshape: bool = False,
    ) -> None:
        super().__init__(backbone, num_classes)
        widths = backbone.measure_blocks()
        self.responding = [  # stage and block, both counted from 0
            (stage, len(widths[stage]) + place)
            for stage, places in _RESPONDING.items()
            for place in places
            if len(widths[stage]) + place >= 0
        ]
        self.asking = (4, max(len(widths[4]) + _ASKING, 0))
        query, *responses = [widths[stage][block] for stage, block in [self.asking, *self.responding]]
        self.cnl = CrossLayerNonLocal(query, responses, planes, published_reshape=published_reshape)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(backbone.widths[-1], num_classes))

    def forward(self, images: Tensor) -> Logits:
        """``[B, 3, H, W]`` to logits."""
        x, responses = images, []
        for stage, blocks in enumerate(self.backbone.list_blocks()):
            for place, block in enumerate(blocks):
                x = block(x)
                if (stage, place) in self.responding:
                    responses.append(x)
                if (stage, place) == self.asking:
                    x = x + self.cnl(x, responses)
        return Logits((), self.classifier(x.mean((2, 3))))


def _flatten_places(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)[:, None]  # [B, 1, hw, C]: one head
