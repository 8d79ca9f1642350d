"""SnapMix's class activation maps during training, from an auxiliary linear head beside the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import SGD

from mosaicaug import class_activation_map, cross_entropy
from pmsi.recipe import Recipe
from pmsi.runtime.session import Session


class SnapMixHead(nn.Module):
    """Linear head on pooled, detached features, trained beside the network, with an optimizer of its own.

    The network's own classifiers are not linear on pooled maps, so no class activation map can be read from them.

    Args:
        channels: C, of the deepest map of the backbone.
        num_classes: K.
        recipe: momentum and weight decay.
    """

    def __init__(self, channels: int, num_classes: int, recipe: Recipe) -> None:
        super().__init__()
        self.head = nn.Linear(channels, num_classes)
        self.optimizer = SGD(self.parameters(), lr=0.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay)

    def maps(self, features: Tensor, labels: Tensor) -> Tensor:
        """Class activation maps ``[B, h, w]`` of ``features`` ``[B, C, h, w]`` for ``labels`` ``[B]``."""
        return class_activation_map(features, self.head.weight, self.head.bias, labels)

    def train_step(self, pooled: Tensor, labels: Tensor, lr: float) -> None:
        """Train the head by one step at rate ``lr``, on pooled features ``[B, C]``."""
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        loss = cross_entropy(self.head(pooled), labels)
        torch.autograd.backward(loss)
        self.optimizer.step()


def measure_maps(
    head: SnapMixHead, backbone: nn.Module, images: Tensor, labels: Tensor, session: Session, *, lr: float
) -> Tensor:
    """Compute SnapMix's maps of the whole batch, ``[B, h, w]``, and train the head by one step.

    Takes one more pass of the backbone, in training mode, as published.

    Args:
        head: makes the maps before its step.
        backbone: its deepest map is used; it gets no gradients.
        images: raw inputs of this process, ``[b, 3, H, W]``.
        labels: of the whole batch, int64 ``[B]``.
        session: precision, and the processes that share the batch.
        lr: learning rate of the head.
    """
    processes = session.processes
    with torch.no_grad(), session.fabric.autocast():
        features = backbone(images)[-1].float()
    maps = processes.gather(head.maps(features, labels[processes.split(len(labels))]))
    head.train_step(processes.gather(features.mean((2, 3))), labels, lr)
    return maps
