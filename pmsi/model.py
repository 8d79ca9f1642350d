"""What every network is to the trainer; and the multi-stage interaction (MSI) network of RMG-PMSI (Wu et al. 2021,
section III-C, Eq. 1 to 8).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mosaicaug import Targets, cross_entropy
from pmsi.backbones import Backbone


class Logits(NamedTuple):
    """What the network says: one prediction per stage, shallow to deep, and the one on all of them.

    Args:
        stages: StageNum tensors ``[B, K]`` (Eq. 4).
        concat: ``[B, K]`` (Eq. 6).
    """

    stages: tuple[Tensor, ...]
    concat: Tensor

    @property
    def mix(self) -> Tensor:
        """Sum of all logits, ``[B, K]`` (Eq. 8)."""
        return torch.stack([*self.stages, self.concat]).sum(0)

    def pick(self, output: int | None) -> Tensor:
        """Logits of one stage, counted from the shallowest, or for None the concat logits.

        Raises:
            ValueError: there is no such stage.
        """
        if output is None:
            return self.concat
        if not 0 <= output < len(self.stages):
            raise ValueError(f"output must be None or one of {len(self.stages)} stages, counted from 0; got {output}")
        return self.stages[output]


class Network(nn.Module):
    """What the trainer asks of every network: ``forward(images) -> Logits``, parameter groups and a loss.

    A network with one output says ``Logits((), logits)``, so that its mix is that output.

    Args:
        backbone: its parameters are the first group.
        num_classes: K.

    Attributes:
        label_smoothing: share of every label that the loss spreads over all classes.

    Raises:
        ValueError: fewer than two classes.
    """

    label_smoothing = 0.0

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"{type(self).__name__}: needs 2 classes or more, got {num_classes}")
        self.backbone = backbone

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Parameters of the backbone, and the newly added ones."""
        backbone = list(self.backbone.parameters())
        known = set(backbone)
        return backbone, [parameter for parameter in self.parameters() if parameter not in known]

    def loss(self, images: Tensor, targets: Tensor | Targets, output: int | None = None) -> Tensor:
        """Loss of one training phase, a scalar.

        Args:
            images: ``[B, 3, H, W]``, normalised.
            targets: as `mosaicaug.cross_entropy` takes them.
            output: the stage that the phase trains, counted from the shallowest; None for the concat or only output.

        Raises:
            ValueError: no such output. TypeError: a network that compares images was given mixed labels.
        """
        logits: Logits = self(images)
        return cross_entropy(logits.pick(output), targets, label_smoothing=self.label_smoothing)


class PMSI(Network):
    """Backbone, smooth convolutions, interaction and classifiers.

    Args:
        backbone: five stages, of which the deepest ``stages`` take part.
        num_classes: K.
        stages: StageNum, 1 to 5.
        interaction: MSI (M of Table III); without it m_n = x_n.
        feature_width: c, channels of the feature vectors; by the published rule half the last stage's channels.
        hidden_width: of the convolutions, the MLP and the classifiers; by the rule a quarter.
        dropout: between the layers of the MLP, in training.

    Raises:
        ValueError: ``stages`` outside 1..5, or fewer than two classes.

    >>> from pmsi.backbones import make_mobilenet_v2
    >>> logits = PMSI(make_mobilenet_v2(), num_classes=200).eval()(torch.rand(2, 3, 64, 64))
    >>> len(logits.stages), logits.mix.shape
    (3, torch.Size([2, 200]))
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        stages: int = 3,
        interaction: bool = True,
        feature_width: int | None = None,
        hidden_width: int | None = None,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(backbone, num_classes)
        if not 1 <= stages <= len(backbone.widths):
            raise ValueError(f"PMSI: stages must lie in 1..{len(backbone.widths)}, got {stages}")
        width = feature_width or backbone.widths[-1] // 2
        hidden = hidden_width or backbone.widths[-1] // 4
        self.interaction = interaction
        self.smooth = nn.ModuleList(_smooth_conv(channels, hidden, width) for channels in backbone.widths[-stages:])
        self.mlp = nn.Sequential()
        if interaction:  # no activation between the layers, as published
            self.mlp = nn.Sequential(nn.Linear(stages * width, hidden), nn.Dropout(dropout), nn.Linear(hidden, width))
        self.classifiers = nn.ModuleList(_classifier(width, hidden, num_classes) for _ in range(stages))
        # With one stage, Concat is that stage's output and its mutual vector (Table II).
        parts = 2 if stages == 1 and interaction else stages
        self.concat_classifier = _classifier(parts * width, hidden, num_classes)

    def forward(self, images: Tensor) -> Logits:
        """``[B, 3, H, W]`` to logits."""
        maps = self.backbone(images, len(self.smooth))
        vectors = [smooth(x).amax((2, 3)) for smooth, x in zip(self.smooth, maps, strict=True)]  # x_n [B, c]
        parts = vectors
        if self.interaction:
            mutual = self.mlp(torch.cat(vectors, 1))  # x_m, Eq. 1
            parts = [x + torch.sigmoid(mutual * x) * x for x in vectors]  # m_n, Eq. 2 and 3
        logits = tuple(classify(m) for classify, m in zip(self.classifiers, parts, strict=True))
        if len(parts) == 1 and self.interaction:
            parts = [*parts, mutual]
        return Logits(logits, self.concat_classifier(torch.cat(parts, 1)))  # Eq. 5 and 6


def _smooth_conv(channels: int, hidden: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1, bias=False),
        nn.BatchNorm2d(hidden, momentum=0.01),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width, momentum=0.01),
        nn.ReLU(inplace=True),
    )


def _classifier(width: int, hidden: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm1d(width),
        nn.Linear(width, hidden),
        nn.BatchNorm1d(hidden),
        nn.ELU(inplace=True),
        nn.Linear(hidden, num_classes),
    )
