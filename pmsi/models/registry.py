"""Builds the network that a recipe names, and reads a trained one from a checkpoint."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pmsi.models.backbones import make_backbone
from pmsi.models.base import Network
from pmsi.models.layers import tune_layers
from pmsi.recipe import Recipe
from pmsi.recipe.networks import NETWORKS, NetworkName
from pmsi.runtime.checkpoints import load_parts


def network_class(name: NetworkName) -> type[Network]:
    """Class of a network by its name in a recipe (a line of `pmsi.recipe.networks.NETWORKS`).

    >>> network_class("bcnn").__name__, network_class("bcnn").recipe["lr_new"]
    ('BCNN', 1.0)
    """
    module, _, name_of_class = NETWORKS[name].where.partition(":")
    found: type[Network] = getattr(importlib.import_module(module), name_of_class)
    assert issubclass(found, Network)
    return found


def make_network(recipe: Recipe, num_classes: int, weights: str = "none") -> Network:
    """Build the recipe's network, in channels_last (a quarter faster on CPUs) and with tuned layers.

    Args:
        recipe: names network and backbone, and sets their sizes.
        num_classes: K.
        weights: of the backbone, as `make_backbone` takes them.

    Raises:
        ValueError, FileNotFoundError, ConnectionError, ImportError: as `make_backbone`; or the network needs another
            backbone.

    >>> network = make_network(Recipe(stages=2), num_classes=10)
    >>> len(network.eval()(torch.rand(1, 3, 64, 64)).stages)
    2
    """
    backbone = make_backbone(recipe.backbone, weights, width_mult=recipe.width_mult, stem_stride=recipe.stem_stride)
    network = network_class(recipe.network).from_recipe(backbone, num_classes, recipe)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and not name.startswith("smooth."):
            module.momentum = recipe.batch_norm_momentum
    network.label_smoothing = recipe.label_smoothing
    network.distill_weight = recipe.distill_weight if recipe.progressive else 0.0  # else no stage was trained
    tune_layers(network)
    return network.to(memory_format=torch.channels_last)


def read_network(checkpoint: Mapping[str, Any], recipe: Recipe, num_classes: int, path: Path) -> Network:
    """Read the network that is tested from a loaded checkpoint: the trained one, or its moving average.

    Raises:
        ValueError: another version of pmsi wrote the checkpoint at ``path``, and its network does not fit.
    """
    name = "average" if recipe.ema_decay is not None else "model"
    stored = checkpoint.get(name)
    rows = [len(one) for one in stored.values() if isinstance(one, Tensor) and one.ndim] if stored else []
    if num_classes > max(rows, default=num_classes):  # before so large a network is made
        raise ValueError(f"{path} is damaged: it names {num_classes} classes, and no tensor in it has so many rows")
    network = make_network(recipe, num_classes)
    load_parts(checkpoint, {name: network}, path)
    return network
