"""What a recipe's run is made of: network, objective, learning rates, and SnapMix's source of maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from mosaicaug import Targets, class_activation_map, cross_entropy
from pmsi.backbones import make_backbone
from pmsi.config import Recipe
from pmsi.loader import count_batches
from pmsi.model import PMSI, Network
from pmsi.rivals import PMG, RIVALS


class Objective(nn.Module):
    """Images to the loss of one phase: what is compiled, and what processes average the gradients of."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, targets: Tensor | Targets, output: int | None) -> Tensor:
        return self.network.loss(images, targets, output)


class Camera(nn.Module):
    """SnapMix's source of maps: a linear head on pooled, detached features, trained beside the network.

    The network's own classifiers are not linear on pooled maps, so no class activation map can be read from them.
    """

    def __init__(self, channels: int, num_classes: int, recipe: Recipe) -> None:
        super().__init__()
        self.head = nn.Linear(channels, num_classes)
        self.optimizer = SGD(self.parameters(), lr=0.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay)

    def look(self, features: Tensor, labels: Tensor) -> Tensor:
        """Maps ``[B, h, w]`` of ``features`` ``[B, C, h, w]``."""
        return class_activation_map(features, self.head.weight, self.head.bias, labels)

    def learn(self, pooled: Tensor, labels: Tensor, lr: float) -> None:
        """One training step of the head, on ``[B, C]``."""
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        loss = cross_entropy(self.head(pooled), labels)
        torch.autograd.backward(loss)
        self.optimizer.step()


def make_network(recipe: Recipe, num_classes: int, weights: str = "none") -> Network:
    """The recipe's network, in channels_last (a quarter faster on CPUs)."""
    backbone = make_backbone(recipe.backbone, weights, stem_stride=recipe.stem_stride)
    widths: dict[str, Any] = {"feature_width": recipe.feature_width, "hidden_width": recipe.hidden_width}
    network: Network
    if recipe.network == "pmsi":
        how: dict[str, Any] = {"stages": recipe.stages, "interaction": recipe.interaction, "dropout": recipe.dropout}
        network = PMSI(backbone, num_classes, **how, **widths)
    elif recipe.network == "pmg":
        network = PMG(backbone, num_classes, stages=recipe.stages, **widths)
    else:
        network = RIVALS[recipe.network](backbone, num_classes)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and not name.startswith("smooth."):
            module.momentum = recipe.batch_norm_momentum
    network.label_smoothing = recipe.label_smoothing
    return network.to(memory_format=torch.channels_last)


def read_network(checkpoint: dict[str, Any], recipe: Recipe, num_classes: int) -> Network:
    """The network of a checkpoint that was, or will be, tested."""
    network = make_network(recipe, num_classes)
    network.load_state_dict(checkpoint["average" if recipe.ema_decay is not None else "model"])
    return network


def make_schedule(recipe: Recipe, optimizer: SGD, count: int) -> LRScheduler:
    """The recipe's learning rates for ``count`` training images, to be stepped once per mini-batch."""
    steps = recipe.epochs * count_batches(recipe, count)
    if recipe.schedule == "onecycle":
        peaks = [recipe.lr_backbone, recipe.lr_new]
        warmup = max(recipe.warmup, 2 / (steps + 1))  # of one step, torch divides by zero
        return OneCycleLR(optimizer, peaks, total_steps=steps + 1, pct_start=warmup, cycle_momentum=False)
    period = recipe.epochs * count if recipe.schedule == "released" else steps
    return CosineAnnealingLR(optimizer, period)
