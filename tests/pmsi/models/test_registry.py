"""All networks that a recipe can name: interface, sizes, and that each learns."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import mosaicaug
from mosaicaug import Targets
from pmsi.models.backbones import make_mobilenet_v2
from pmsi.models.base import Network
from pmsi.models.baseline import Baseline
from pmsi.models.registry import make_network, network_class
from pmsi.recipe import RECIPES, Recipe
from pmsi.recipe.networks import NETWORKS, NetworkFacts, NetworkName
from pmsi.training.phases import list_phases
from tests.helpers.small_run import RECIPE, make_backbone, make_dataset

SMALL: dict[str, dict[str, Any]] = {
    "hbp": {"width": 64},
    "pmsi": {"feature_width": 16, "hidden_width": 8},
    "pmg": {"feature_width": 16, "hidden_width": 8},
    "api": {"hidden": 16},
    "cnl": {"planes": 4},
}


class Mine(Baseline):
    """A network that the package does not know."""


def make_small(name: NetworkName, num_classes: int = 3, **options: Any) -> Network:
    return network_class(name)(make_backbone(), num_classes, **SMALL.get(name, {}) | options)


def count(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


@pytest.mark.parametrize("name", NETWORKS)
def test_interface(name: NetworkName) -> None:
    network = make_small(name)
    images, labels = torch.randn(6, 3, 32, 32), torch.arange(6) % 3
    logits = network.eval()(images)
    stages = 3 if NETWORKS[name].outputs == "stages" else 0
    assert [tuple(one.shape) for one in (*logits.stages, logits.concat, logits.mix)] == [(6, 3)] * (stages + 2)
    assert stages or torch.equal(logits.mix, logits.concat)
    loss = network.train().loss(images, labels)
    assert loss.shape == ()
    groups = network.parameter_groups()
    assert [id(p) for p in groups[0]] == [id(p) for p in network.backbone.parameters()]
    assert sorted(id(p) for group in groups for p in group) == sorted(id(p) for p in network.parameters())


@pytest.mark.parametrize("name", [name for name in NETWORKS if NETWORKS[name].outputs == "one"])
def test_one_phase_trains_everything(name: NetworkName) -> None:
    network = make_small(name)
    torch.autograd.backward(network.loss(torch.randn(6, 3, 32, 32), torch.arange(6) % 3))
    assert [place for place, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_that_are_not_there_are_refused(name: NetworkName) -> None:
    with pytest.raises(ValueError, match="output must be None"):
        make_small(name).loss(torch.randn(4, 3, 32, 32), torch.tensor([0, 0, 1, 1]), 3)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_class_is_refused(name: NetworkName) -> None:
    with pytest.raises(ValueError, match="needs 2 classes or more, got 1"):
        make_small(name, 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_mixed_labels(name: NetworkName) -> None:
    """Networks that compare classes refuse them; the loss of the others is the library's."""
    network = make_small(name).eval()
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4) % 3
    targets = Targets(labels, labels.flip(0), torch.full((4,), 0.75), torch.full((4,), 0.25))
    if NETWORKS[name].compares_images:
        for mixed, kind in ((targets, "Targets"), (targets.to_soft(3), r"torch\.float32 \[4, 3\]")):
            with pytest.raises(TypeError, match=rf"needs integer labels \[B\], got {kind}; train it without CutMix"):
                network.loss(images, mixed)
        return
    wanted = mosaicaug.cross_entropy(network(images).concat, targets)
    torch.testing.assert_close(network.loss(images, targets), wanted, rtol=0, atol=0)
    torch.testing.assert_close(network.loss(images, targets.to_soft(3)), wanted)


@pytest.mark.parametrize("name", NETWORKS)
def test_recipes_are_recipes(name: NetworkName) -> None:
    recipe = replace(RECIPES["paper"], network=name, **network_class(name).recipe)
    assert len(list_phases(recipe)) == (4 if NETWORKS[name].outputs == "stages" else 1)


@pytest.mark.usefixtures("small_backbone")
def test_a_network_from_elsewhere_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "mine", NetworkFacts("elsewhere:Mine"))  # type: ignore[misc]
    monkeypatch.setitem(sys.modules, "elsewhere", SimpleNamespace(Mine=Mine))
    recipe = Recipe(network="mine", augmentation="none", progressive=False, interaction=False)  # type: ignore[arg-type]
    assert isinstance(make_network(recipe, 3), Mine)
    with pytest.raises(ValueError, match="network mine has one output to train"):
        replace(recipe, progressive=True)


@pytest.mark.usefixtures("small_backbone")
def test_networks_have_the_sizes_of_the_recipe() -> None:
    recipe = replace(RECIPE, stages=2, interaction=False, dropout=0.25, batch_norm_momentum=0.3, label_smoothing=0.1)
    for name in ("pmsi", "pmg"):
        network = make_network(replace(recipe, network=name), 3)
        assert len(network.eval()(torch.zeros(1, 3, 32, 32)).stages) == 2
        assert network.label_smoothing == 0.1
        momenta = {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)}
        assert momenta == {0.01, 0.3}
        assert {p.shape[0] for n, p in network.named_parameters() if n.startswith("smooth") and p.ndim == 4} == {8, 16}
    network = make_network(replace(RECIPE, dropout=0.25), 3)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.25]


@pytest.mark.parametrize(
    ("name", "new"),
    [("baseline", 256_200), ("bcnn", 20_480_200), ("hbp", 19_357_896), ("pc", 256_200), ("api", 2_224_072)]
    + [("cnl", 464_200), ("pmg", 7_483_040)],
)
def test_parameters_on_mobilenet_v2(name: NetworkName, new: int) -> None:
    """For 200 classes. B-CNN leaves out the last convolution, 412,160 parameters."""
    groups = network_class(name)(make_mobilenet_v2(), 200).parameter_groups()
    assert [count(group) for group in groups] == [2_223_872 - (412_160 if name == "bcnn" else 0), new]


# Learning: twelve images of random pixels, three classes, the whole set in every step.

LEARNING: dict[str, dict[str, Any]] = {"pc": {"confusion_weight": 0.1}}  # 10 keeps three classes all but uniform


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_falls_by_half(name: NetworkName) -> None:
    """Within 20 steps; of PMSI and PMG, 20 mini-batches of four phases on raw images."""
    network = make_small(name, **LEARNING.get(name, {})).train()
    split = make_dataset(side=32).train
    order = split.labels.argsort()  # pairs of one class have no confusion
    images, labels = split.images[order] / 127.5 - 1, split.labels[order]
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-2)
    outputs = (0, 1, 2, None) if NETWORKS[name].outputs == "stages" else (None,)
    losses = []
    for _ in range(20):
        for output in outputs:
            loss = network.loss(images, labels, output)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(("name", "option"), [("bcnn", "width"), ("hbp", "width"), ("cnl", "planes")])
def test_widths_below_one_are_refused(name: NetworkName, option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option} must be 1 or more, got 0"):
        make_small(name, **{option: 0})
