"""PMSI and PMG beside their published networks and training steps, written anew in plain torch from descriptions.

Compared to the bit, on a CPU in float32: the four outputs, the losses of all optimiser steps, and every weight and
batch-norm statistic after them. Both sides are given the same inputs, memory format (convolutions round differently in
another), torch's own layers (`tune_layers` puts others in their place, see `test_layers`) and implementation of SGD
(torch's others end up to 2e-9 away in three biases).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD
from torchvision.models import mobilenet_v2, resnet50

from pmsi.models.pmg import PMG
from pmsi.recipe import RECIPES, Recipe
from pmsi.recipe.networks import NetworkName
from tests.helpers.small_run import make_dataset, make_trainer

CLASSES, IMAGES, SIDE = 3, 3, 64  # the last map is 2 x 2


class Published(nn.Module):
    """Backbone, a block and a classifier for each of three stages, the interaction of PMSI, and a last classifier.

    Args:
        stages: lists of modules; the maps of the last three lists are used.
        channels: of these maps.
        hidden: a quarter of the last map's channels; feature vectors have half of them.
        interacts: the network is PMSI, not PMG.
    """

    def __init__(
        self, stages: list[list[nn.Module]], channels: tuple[int, ...], hidden: int, *, interacts: bool
    ) -> None:
        super().__init__()
        width = 2 * hidden
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in stages)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden, momentum=0.01), nn.ReLU()),
                *(nn.Conv2d(hidden, width, 3, padding=1, bias=False), nn.BatchNorm2d(width, momentum=0.01), nn.ReLU()),
            )
            for inputs in channels
        )
        if interacts:
            self.map1, self.map2 = nn.Linear(3 * width, hidden), nn.Linear(hidden, width)
        self.interacts = interacts
        self.classifiers = nn.ModuleList(
            nn.Sequential(
                *(nn.BatchNorm1d(inputs), nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ELU(inplace=True)),
                nn.Linear(hidden, CLASSES),
            )
            for inputs in (width, width, width, 3 * width)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        x3, x4, x5 = (
            F.adaptive_max_pool2d(block(x), 1).flatten(1) for block, x in zip(self.blocks, maps[-3:], strict=True)
        )
        if self.interacts:
            mutual = self.map2(F.dropout(self.map1(torch.cat((x3, x4, x5), 1)), 0.5, self.training))
            g3, g4, g5 = (torch.sigmoid(mutual * x) for x in (x3, x4, x5))
            x3, x4, x5 = x3 + g3 * x3, x4 + g4 * x4, x5 + g5 * x5
        inputs = (x3, x4, x5, torch.cat((x3, x4, x5), 1))
        return [classify(x) for classify, x in zip(self.classifiers, inputs, strict=True)]


def make_published_pmsi() -> Published:
    """MobileNetV2 cut at the last block before each one of stride 2."""
    features = list(mobilenet_v2().features)
    stages = [features[:1], features[1:4], features[4:7], features[7:14], features[14:]]
    return Published(stages, (32, 96, 1280), 320, interacts=True)


def make_published_pmg() -> Published:
    model = resnet50()
    stages = [[model.conv1, model.bn1, model.relu, model.maxpool], [model.layer1], [model.layer2], [model.layer3]]
    return Published([*stages, [model.layer4]], (512, 1024, 2048), 512, interacts=False)


def train_published(network: Published, recipe: Recipe, batches: list[list[Tensor]], labels: Tensor) -> list[float]:
    """Four steps of two optimisers for each mini-batch, one for each input; losses of all steps."""
    stages = list(network.stages.parameters())
    new = [p for part in network.children() if part is not network.stages for p in part.parameters()]
    rates = ((stages, recipe.lr_backbone), (new, recipe.lr_new))
    optimizers = [SGD(group, lr=rate, momentum=0.9, weight_decay=5e-4, fused=True) for group, rate in rates]
    losses = []
    network.train()
    for inputs in batches:
        for phase, images in enumerate(inputs):
            for parameter in network.parameters():  # zero where nothing flows, as the torch of then left it
                parameter.grad = torch.zeros_like(parameter)
            loss = F.cross_entropy(network(images)[phase], labels) * (2 if phase == 3 else 1)
            torch.autograd.backward(loss)
            for optimizer in optimizers:
                optimizer.step()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("name", "make", "own", "batches"),
    [
        ("pmsi", make_published_pmsi, {}, 3),
        ("pmg", make_published_pmg, {"backbone": "resnet50", **PMG.recipe}, 1),  # ResNet-50 takes longer
    ],
)
def test_outputs_and_steps_are_the_published_ones(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: NetworkName,
    make: Callable[[], Published],
    own: dict[str, Any],
    batches: int,
) -> None:
    monkeypatch.setattr("pmsi.models.registry.tune_layers", lambda _: None)
    sizes = {"resize": SIDE, "crop": SIDE, "batch_size": IMAGES, "batch_norm_images": None, "freeze_epochs": 0}
    recipe = replace(RECIPES["released"], **{**own, **sizes}, network=name)
    trainer = make_trainer(tmp_path, recipe, dataset=make_dataset(train_images=IMAGES, side=SIDE))
    ours, published = trainer.network, make().to(memory_format=torch.channels_last)
    ours.load_state_dict(dict(zip(ours.state_dict(), published.state_dict().values(), strict=True)))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batches, 4, IMAGES, 3, SIDE, SIDE, generator=generator)
    inputs = [[one.contiguous(memory_format=torch.channels_last) for one in phases] for phases in images]
    labels = torch.arange(IMAGES)

    with torch.inference_mode():
        expected, found = published.eval()(inputs[0][0]), ours.eval()(inputs[0][0])
    for theirs, one in zip(expected, (*found.stages, found.concat), strict=True):
        assert torch.equal(theirs, one)

    torch.manual_seed(0)  # dropout
    expected_losses = train_published(published, recipe, inputs, labels)
    trainer.objective.train()
    torch.manual_seed(0)
    losses = [trainer.step_phases([(one, labels) for one in phases]) for phases in inputs]
    assert torch.cat(losses).tolist() == expected_losses
    for (key, weight), theirs in zip(ours.state_dict().items(), published.state_dict().values(), strict=True):
        assert torch.equal(weight, theirs), key
