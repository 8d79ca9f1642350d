"""Multi-stage interaction (MSI) network of RMG-PMSI (Wu et al. 2021, section III-C, Eq. 1 to 8)."""

from __future__ import annotations

from typing import Literal, Self

import torch
from torch import Tensor, nn

from mosaicaug import Targets, cross_entropy
from pmsi.models.backbones import Backbone
from pmsi.models.base import Logits, Network
from pmsi.recipe import Recipe


class PMSI(Network):
    """Network of RMG-PMSI: backbone, smooth convolutions, interaction and classifiers.

    Args:
        backbone: five stages, of which the deepest ``stages`` take part.
        num_classes: K.
        stages: StageNum, 1 to 5.
        interaction: MSI (M of Table III); without it m_n = x_n.
        feature_width: c, channels of the feature vectors; by the published rule half the last stage's channels.
        hidden_width: of the convolutions, the MLP and the classifiers; by the rule a quarter.
        smooth: "full" is the published 3x3 convolution; "separable" is a depthwise and a pointwise one in its place
            (Howard et al. 2017, section 3.1).
        smooth_width: channels between the layers of the smooth convolutions; None is the hidden width.
        dropout: between the layers of the MLP, in training.

    Attributes:
        deeper_heads: heads deeper than the stage that a phase trains run in it too, as published; without them, and the
            stages of the backbone that they alone need, zeros take the place of their vectors in Eq. 1.

    Raises:
        ValueError: ``stages`` outside 1..5, another ``smooth``, or fewer than two classes.

    >>> from pmsi.models.backbones import make_mobilenet_v2
    >>> logits = PMSI(make_mobilenet_v2(), num_classes=200).eval()(torch.rand(2, 3, 64, 64))
    >>> len(logits.stages), logits.mix.shape
    (3, torch.Size([2, 200]))
    """

    deeper_heads = True

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        stages: int = 3,
        interaction: bool = True,
        feature_width: int | None = None,
        hidden_width: int | None = None,
        smooth: Literal["full", "separable"] = "full",
        smooth_width: int | None = None,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(backbone, num_classes)
        if not 1 <= stages <= len(backbone.widths):
            raise ValueError(f"PMSI: stages must lie in 1..{len(backbone.widths)}, got {stages}")
        if smooth not in _SMOOTH:
            raise ValueError(f"PMSI: smooth must be one of {', '.join(_SMOOTH)}; got {smooth!r}")
        width = feature_width or backbone.widths[-1] // 2
        hidden = hidden_width or backbone.widths[-1] // 4
        self.interaction = interaction
        self.smooth = nn.ModuleList(
            _SMOOTH[smooth](channels, smooth_width or hidden, width) for channels in backbone.widths[-stages:]
        )
        self.mlp = nn.Sequential()
        if interaction:  # no activation between the layers, as published
            self.mlp = nn.Sequential(nn.Linear(stages * width, hidden), nn.Dropout(dropout), nn.Linear(hidden, width))
        self.classifiers = nn.ModuleList(_classifier(width, hidden, num_classes) for _ in range(stages))
        # With one stage, Concat is that stage's output and its mutual vector (Table II).
        parts = 2 if stages == 1 and interaction else stages
        self.concat_classifier = _classifier(parts * width, hidden, num_classes)

    @classmethod
    def from_recipe(cls, backbone: Backbone, num_classes: int, recipe: Recipe) -> Self:
        """Build the network with the recipe's stages, interaction, widths, smooth convolutions, dropout and phases."""
        network = cls(
            backbone,
            num_classes,
            stages=recipe.stages,
            interaction=recipe.interaction,
            feature_width=recipe.feature_width,
            hidden_width=recipe.hidden_width,
            smooth=recipe.smooth,
            smooth_width=recipe.smooth_width,
            dropout=recipe.dropout,
        )
        network.deeper_heads = recipe.deeper_heads
        return network

    def forward(self, images: Tensor) -> Logits:
        """``[B, 3, H, W]`` to logits."""
        parts, mutual = self._interact(images, len(self.smooth))
        logits = tuple(classify(m) for classify, m in zip(self.classifiers, parts, strict=True))
        if len(parts) == 1 and self.interaction:
            parts = [*parts, mutual]
        return Logits(logits, self.concat_classifier(torch.cat(parts, 1)))  # Eq. 5 and 6

    def loss(self, images: Tensor, targets: Tensor | Targets, output: int | None = None) -> Tensor:
        """Loss of one training phase, as of every network; see ``deeper_heads``."""
        if self.deeper_heads or output is None:
            return super().loss(images, targets, output)
        parts, _ = self._interact(images, output + 1)
        return cross_entropy(self.classifiers[output](parts[-1]), targets, label_smoothing=self.label_smoothing)

    def _interact(self, images: Tensor, heads: int) -> tuple[list[Tensor], Tensor]:
        """Vectors m_n of the shallowest ``heads`` stages, ``[B, c]`` each, and the mutual vector x_m."""
        left_out = len(self.smooth) - heads
        maps = self.backbone(images, len(self.smooth), left_out)
        vectors = [smooth(x).amax((2, 3)) for smooth, x in zip(self.smooth, maps, strict=left_out == 0)]  # x_n [B, c]
        if not self.interaction:
            return vectors, vectors[0]
        mutual = self.mlp(torch.cat([*vectors, *[torch.zeros_like(vectors[0])] * left_out], 1))  # Eq. 1
        return [x + torch.sigmoid(mutual * x) * x for x in vectors], mutual  # Eq. 2 and 3


def _smooth_conv(channels: int, hidden: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1, bias=False),
        nn.BatchNorm2d(hidden, momentum=0.01),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width, momentum=0.01),
        nn.ReLU(inplace=True),
    )


def _separable_conv(channels: int, hidden: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1, bias=False),
        nn.BatchNorm2d(hidden, momentum=0.01),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
        nn.BatchNorm2d(hidden, momentum=0.01),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, width, 1, bias=False),
        nn.BatchNorm2d(width, momentum=0.01),
        nn.ReLU(inplace=True),
    )


_SMOOTH = {"full": _smooth_conv, "separable": _separable_conv}


def _classifier(width: int, hidden: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm1d(width),
        nn.Linear(width, hidden),
        nn.BatchNorm1d(hidden),
        nn.ELU(inplace=True),
        nn.Linear(hidden, num_classes),
    )
