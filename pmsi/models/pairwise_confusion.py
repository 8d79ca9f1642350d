"""Pairwise Confusion for Fine-Grained Visual Classification (Dubey et al., ECCV 2018, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from mosaicaug import Targets, cross_entropy
from pmsi.models.backbones import Backbone
from pmsi.models.baseline import Baseline, check_hard_labels


class PairwiseConfusion(Baseline):
    """The baseline, trained to predict alike for pairs of images of different classes.

    Pairs are image i and image i + B / 2 of the batch. The official code differs from its paper; every choice is a
    switch, and the defaults are the paper's.

    Args:
        backbone: its last stage is used.
        num_classes: K.
        confusion_weight: of the confusion beside the cross-entropy of the whole batch (the paper's lambda).
        on: compare probabilities (what its author advises) or logits (which need a weight of about 0.01).
        squared: squared Euclidean distance (the paper) or the distance itself (the official torch code).
        mask: leave out pairs of one class (the paper's gamma); the official torch code does not.
        reduction: divide the sum over pairs by "pairs", B / 2, or by "batch", B, as the official torch code.
        dropout: of the baseline.

    >>> from pmsi.models.backbones import make_mobilenet_v2
    >>> network = PairwiseConfusion(make_mobilenet_v2(), num_classes=200)
    >>> network.loss(torch.rand(4, 3, 64, 64), torch.arange(4)).shape
    torch.Size([])
    """

    # The official code gives rates for Caffe at 224 px alone (ResNet-50 on CUB: lr 0.1, batch 12 x 12). So the
    # baseline's recipe; its README weighs the confusion by 0.1 to 0.2 times the number of classes, in its own scale
    # (un-squared distances, divided by the batch size): 20 to 40 on CUB.
    recipe: ClassVar[Mapping[str, Any]] = {
        "augmentation": "none",
        "label_smoothing": 0.0,
        "progressive": False,
        "interaction": False,
    }

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        confusion_weight: float = 10.0,
        on: Literal["probabilities", "logits"] = "probabilities",
        squared: bool = True,
        mask: bool = True,
        reduction: Literal["pairs", "batch"] = "pairs",
        dropout: float = 0.2,
    ) -> None:
        super().__init__(backbone, num_classes, dropout=dropout)
        if on not in ("probabilities", "logits"):
            raise ValueError(f"PairwiseConfusion: on must be 'probabilities' or 'logits', got {on!r}")
        if reduction not in ("pairs", "batch"):
            raise ValueError(f"PairwiseConfusion: reduction must be 'pairs' or 'batch', got {reduction!r}")
        self.confusion_weight, self.on, self.squared = confusion_weight, on, squared
        self.mask, self.reduction = mask, reduction

    def loss(self, images: Tensor, targets: Tensor | Targets, output: int | None = None) -> Tensor:
        """Cross-entropy of the batch and the weighted confusion of its pairs.

        Raises:
            TypeError: mixed labels. ValueError: an odd batch, or an ``output``.
        """
        labels = check_hard_labels("PairwiseConfusion", targets)
        logits = self(images).pick(output)
        values = logits.softmax(1) if self.on == "probabilities" else logits
        confusion = pair_confusion(values, labels if self.mask else None, squared=self.squared)
        share = len(values) // 2 if self.reduction == "pairs" else len(values)
        return cross_entropy(logits, labels) + self.confusion_weight * confusion / share


def pair_confusion(values: Tensor, labels: Tensor | None, *, squared: bool) -> Tensor:
    """Sum of the distances between row i and row i + B / 2 of ``values`` ``[B, K]``, a scalar.

    Args:
        labels: ``[B]``; pairs of one class count as 0. None counts all pairs.
        squared: sum squared distances.

    Raises:
        ValueError: an odd number of rows.

    >>> pair_confusion(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]), squared=True)
    tensor(2.)
    """
    if len(values) % 2:
        raise ValueError(f"PairwiseConfusion: pairs up the batch, which must be even, got {len(values)} images")
    left, right = values.chunk(2)
    distances = (left - right).square().sum(1) if squared else torch.linalg.vector_norm(left - right, dim=1)
    if labels is not None:
        one, other = labels.chunk(2)
        distances = distances * (one != other)
    return distances.sum()
