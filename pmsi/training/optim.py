"""Optimizer, learning-rate schedules, and an exponential moving average of the weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from pmsi.models.base import Network
from pmsi.recipe import Recipe
from pmsi.training.batches import count_batches

NEW_LAYERS = 1  # number of the group of the newly added layers in every optimizer of `make_optimizer`


def make_optimizer(recipe: Recipe, network: Network) -> Optimizer:
    """SGD or AdamW over the backbone and, as group `NEW_LAYERS`, the newly added layers.

    With ``recipe.layer_decay`` below 1 the first group is the deepest level of the backbone, and shallower ones follow
    the new layers, deep to shallow.
    """
    backbone, new = network.parameter_groups()
    rates = [recipe.lr_backbone * recipe.layer_decay**depth for depth in range(len(network.backbone.widths))]
    levels = [backbone]
    if recipe.layer_decay < 1:
        levels = [list(stage.parameters()) for stage in reversed(network.backbone.stages)]
        assert sum(map(len, levels)) == len(backbone)
    groups: list[dict[str, Any]] = [{"params": level, "lr": rate} for level, rate in zip(levels, rates, strict=False)]
    groups.insert(NEW_LAYERS, {"params": new, "lr": recipe.lr_new})
    # One kernel for all parameters, a seventh of the step at 64 px on two cores; it needs a gradient of each of them.
    fused = recipe.zero_idle_grads
    if recipe.optimizer == "adamw":
        return AdamW(groups, weight_decay=recipe.weight_decay, fused=fused)
    return SGD(groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=fused)


def start_momentum(optimizer: Optimizer) -> None:
    """Give every parameter of SGD a momentum of zero, which its first step would otherwise make.

    torch's fused SGD makes it of unwritten memory, and leaves it so if scaled gradients of that step overflow (fp16).
    """
    for group in optimizer.param_groups:
        if group.get("momentum"):
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def make_schedule(recipe: Recipe, optimizer: Optimizer, count: int) -> LRScheduler:
    """Schedule of the recipe's learning rates for ``count`` training images, stepped once per mini-batch."""
    steps = recipe.epochs * count_batches(recipe, count)
    if recipe.schedule == "onecycle":
        peaks = [group["lr"] for group in optimizer.param_groups]
        warmup = max(recipe.warmup, 2 / (steps + 1))  # of one step, torch divides by zero
        return OneCycleLR(optimizer, peaks, total_steps=steps + 1, pct_start=warmup, cycle_momentum=False)
    period = recipe.epochs * count if recipe.schedule == "released" else steps
    return CosineAnnealingLR(optimizer, period)


def fill_gradients(optimizer: Optimizer) -> None:
    """Give parameters that a backward pass did not reach a gradient of zero.

    They keep weight decay and momentum so, and they are alike in a resumed run.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)


class MovingAverage:
    """Exponential moving average of weights and batch-norm statistics (Polyak averaging), on the network's device.

    Early averages are short: after t mini-batches the decay is at most (1 + t) / (10 + t), so that even a short run
    forgets where it began. Nothing here waits for a GPU (torch's ``AveragedModel`` asks its counter every time).

    Args:
        network: to be averaged.
        decay: share of the average that each mini-batch leaves, 0 to 1.

    >>> average, network = MovingAverage(nn.Linear(1, 1, bias=False), 0.9), nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(average.network.weight), nn.init.ones_(network.weight)
    >>> average.update(network, step=1)  # leaves 2 / 11
    >>> round(average.network.weight.item(), 4)
    0.8182
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(requires_grad=False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, *, step: int) -> None:
        """Move the average towards ``network`` after mini-batch ``step``, counted from 1; integers are copied."""
        mine, theirs = self.network.state_dict(), network.state_dict()
        moving = [name for name, tensor in mine.items() if tensor.is_floating_point()]
        leave = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([mine[name] for name in moving], [theirs[name] for name in moving], 1 - leave)
        for name in mine.keys() - moving:
            mine[name].copy_(theirs[name])
