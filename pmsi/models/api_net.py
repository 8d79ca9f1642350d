"""API-Net: Learning Attentive Pairwise Interaction for Fine-Grained Classification (Zhuang et al., AAAI 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mosaicaug import Targets
from pmsi.models.backbones import Backbone
from pmsi.models.baseline import Baseline, check_hard_labels


class Pairs(NamedTuple):
    """Every image with its nearest neighbour of its own class, then with its nearest one of another.

    Args:
        first: int64 ``[2B]``, rows of the batch.
        second: int64 ``[2B]``, the neighbours' rows.
        valid: bool ``[2B]``, False where there is no such neighbour, and ``second`` means nothing.
    """

    first: Tensor
    second: Tensor
    valid: Tensor


class API(Baseline):
    """The baseline, trained on pairs of images that are gated by what they have in common; tested image by image.

    Args:
        backbone: its last stage is used.
        num_classes: K.
        hidden: units between the two layers that make the mutual vector.
        dropout: between them and before the classifier, in training.
        margin: by which the true class's probability shall be higher under an image's own gate than under the other's.
        ranking_weight: of that demand beside the cross-entropy (the paper's lambda).

    >>> from pmsi.models.backbones import make_mobilenet_v2
    >>> network = API(make_mobilenet_v2(), num_classes=200)
    >>> network.loss(torch.rand(4, 3, 64, 64), torch.tensor([0, 0, 7, 7])).shape
    torch.Size([])
    """

    # The published code (ResNet-101, 88.6 % on CUB): cosine per mini-batch, the backbone still for 8 epochs, batches of
    # 30 classes x 4 images. 8 classes x 4 images make the batch of 32 of the other rows on MobileNetV2.
    recipe: ClassVar[Mapping[str, Any]] = {
        "augmentation": "none",
        "label_smoothing": 0.0,
        "progressive": False,
        "interaction": False,
        "lr_backbone": 1e-2,
        "lr_new": 1e-2,
        "epochs": 100,
        "freeze_epochs": 8,
        "batch_size": 32,
        "classes_per_batch": 8,
    }

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        hidden: int = 512,
        dropout: float = 0.5,
        margin: float = 0.05,
        ranking_weight: float = 1.0,
    ) -> None:
        super().__init__(backbone, num_classes, dropout=dropout)
        width = backbone.widths[-1]
        # No activation between the layers, as published.
        self.mlp = nn.Sequential(nn.Linear(2 * width, hidden), nn.Dropout(dropout), nn.Linear(hidden, width))
        self.margin, self.ranking_weight = margin, ranking_weight

    def loss(self, images: Tensor, targets: Tensor | Targets, output: int | None = None) -> Tensor:
        """Cross-entropy of all gated images of all pairs, and the ranking of own before other gates.

        Raises:
            TypeError: mixed labels. ValueError: fewer than two images, or an ``output``.
        """
        if output is not None:
            raise ValueError(f"API: has one output, so output must be None, got {output}")
        labels = check_hard_labels("API", targets)
        vectors = self.pool(images)
        pairs = nearest_pairs(vectors, labels)
        one, two = vectors[pairs.first], vectors[pairs.second]  # x_1, x_2 [2B, D]
        mutual = self.mlp(torch.cat([one, two], 1))  # x_m, Eq. 1
        gate_one, gate_two = torch.sigmoid(mutual * one), torch.sigmoid(mutual * two)  # Eq. 2
        own = self.classifier(torch.cat([one + one * gate_one, two + two * gate_two]))  # Eq. 3 and 4, [4B, K]
        other = self.classifier(torch.cat([one + one * gate_two, two + two * gate_one]))  # Eq. 5 and 6, [4B, K]
        truth = labels[torch.cat([pairs.first, pairs.second])]
        share = pairs.valid.repeat(2) / (2 * pairs.valid.sum())  # of each row in a mean
        entropy = (F.cross_entropy(own, truth, reduction="none") + F.cross_entropy(other, truth, reduction="none")) / 2
        own_share, other_share = (x.softmax(1).gather(1, truth[:, None])[:, 0] for x in (own, other))
        ranking = F.relu(other_share - own_share + self.margin)  # score ranking regularisation
        return (share * (entropy + self.ranking_weight * ranking)).sum()


def nearest_pairs(vectors: Tensor, labels: Tensor) -> Pairs:
    """Pairs within a batch, by Euclidean distance; on the vectors' device, and nothing waits for it.

    An image that is alone with its class, or whose class is all there is, lacks one of its two pairs. (The published
    code pairs it with the first image.)

    Args:
        vectors: ``[B, D]``; no gradient goes through the choice.
        labels: int64 ``[B]``.

    Raises:
        ValueError: fewer than two images.

    >>> pairs = nearest_pairs(torch.tensor([[0.0], [1.0], [5.0], [6.0]]), torch.tensor([0, 1, 0, 1]))
    >>> pairs.second.tolist(), pairs.valid.all().item()
    ([2, 3, 0, 1, 1, 0, 3, 2], True)
    """
    if len(vectors) < 2:
        raise ValueError(f"API: pairs need 2 images or more, got {len(vectors)}")
    points = vectors.detach()
    # Without the shortcut through a matrix product, whose rounding may reorder near neighbours.
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    same = labels[:, None] == labels
    alone = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    banned = torch.cat([~same | alone, same])  # [2B, B]
    second = distances.repeat(2, 1).masked_fill(banned, torch.inf).argmin(1)
    first = torch.arange(len(labels), device=labels.device).repeat(2)
    return Pairs(first, second, ~banned.all(1))
