"""The auxiliary linear head that makes SnapMix's class activation maps during training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import SGD

from mosaicaug import class_activation_map, cross_entropy
from pmsi.recipe import Recipe


class SnapMixHead(nn.Module):
    """SnapMix's source of maps: a linear head on pooled, detached features, trained beside the network.

    The network's own classifiers are not linear on pooled maps, so no class activation map can be read from them.
    """

    def __init__(self, channels: int, num_classes: int, recipe: Recipe) -> None:
        super().__init__()
        self.head = nn.Linear(channels, num_classes)
        self.optimizer = SGD(self.parameters(), lr=0.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay)

    def maps(self, features: Tensor, labels: Tensor) -> Tensor:
        """Maps ``[B, h, w]`` of ``features`` ``[B, C, h, w]``."""
        return class_activation_map(features, self.head.weight, self.head.bias, labels)

    def train_step(self, pooled: Tensor, labels: Tensor, lr: float) -> None:
        """One training step of the head, on ``[B, C]``."""
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        loss = cross_entropy(self.head(pooled), labels)
        torch.autograd.backward(loss)
        self.optimizer.step()
