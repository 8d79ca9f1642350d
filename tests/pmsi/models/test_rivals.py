"""The rivals: each against hand-worked cases, and each learns."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import mosaicaug
from mosaicaug import Targets
from pmsi.models import pmg
from pmsi.models.backbones import Backbone, make_mobilenet_v2
from pmsi.models.backbones import make_backbone as make_real
from pmsi.models.base import Network
from pmsi.models.baseline import Baseline
from pmsi.models.bcnn import BCNN
from pmsi.models.cnl import CNL, CrossLayerNonLocal
from pmsi.models.hbp import HBP
from pmsi.models.pmg import PMG
from pmsi.models.pmsi import PMSI
from pmsi.models.registry import RIVALS
from pmsi.recipe import RECIPES
from pmsi.training.phases import list_phases
from tests.helpers.small_run import make_backbone, make_dataset

SMALL: dict[str, dict[str, Any]] = {
    "hbp": {"width": 64},
    "pmg": {"feature_width": 16, "hidden_width": 8},
    "api": {"hidden": 16},
    "cnl": {"planes": 4},
}
MODULES = ("api_net", "baseline", "bcnn", "cnl", "hbp", "pairwise_confusion", "pmg")


def make_rival(name: str, num_classes: int = 3, **options: Any) -> Network:
    return RIVALS[name](make_backbone(), num_classes, **SMALL.get(name, {}) | options)


def make_identity(blocks: int = 1) -> Backbone:
    """A backbone whose maps are the images themselves, three channels of them."""
    return Backbone(
        [*(nn.Identity() for _ in range(4)), nn.Sequential(*(nn.Identity() for _ in range(blocks)))], (3,) * 5
    )


def find_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


def count(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


# All of them


@pytest.mark.parametrize("name", RIVALS)
def test_interface(name: str) -> None:
    network = make_rival(name)
    images, labels = torch.randn(6, 3, 32, 32), torch.arange(6) % 3
    logits = network.eval()(images)
    stages = 3 if name == "pmg" else 0
    assert [tuple(one.shape) for one in (*logits.stages, logits.concat, logits.mix)] == [(6, 3)] * (stages + 2)
    assert stages or torch.equal(logits.mix, logits.concat)
    loss = network.train().loss(images, labels)
    assert loss.shape == ()
    groups = network.parameter_groups()
    assert [id(p) for p in groups[0]] == [id(p) for p in network.backbone.parameters()]
    assert sorted(id(p) for group in groups for p in group) == sorted(id(p) for p in network.parameters())


@pytest.mark.parametrize("name", [name for name in RIVALS if name != "pmg"])
def test_one_phase_trains_everything(name: str) -> None:
    network = make_rival(name)
    torch.autograd.backward(network.loss(torch.randn(6, 3, 32, 32), torch.arange(6) % 3))
    assert [place for place, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", RIVALS)
def test_outputs_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="output must be None"):
        make_rival(name).loss(torch.randn(4, 3, 32, 32), torch.tensor([0, 0, 1, 1]), 3)


@pytest.mark.parametrize("name", RIVALS)
def test_one_class_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="needs 2 classes or more, got 1"):
        make_rival(name, 1)


@pytest.mark.parametrize("name", RIVALS)
def test_mixed_labels(name: str) -> None:
    """Networks that compare classes refuse them; the loss of the others is the library's."""
    network = make_rival(name).eval()
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4) % 3
    targets = Targets(labels, labels.flip(0), torch.full((4,), 0.75), torch.full((4,), 0.25))
    if name in ("pc", "api"):
        for mixed, kind in ((targets, "Targets"), (targets.to_soft(3), r"torch\.float32 \[4, 3\]")):
            with pytest.raises(TypeError, match=rf"needs integer labels \[B\], got {kind}; train it without CutMix"):
                network.loss(images, mixed)
        return
    wanted = mosaicaug.cross_entropy(network(images).concat, targets)
    torch.testing.assert_close(network.loss(images, targets), wanted, rtol=0, atol=0)
    torch.testing.assert_close(network.loss(images, targets.to_soft(3)), wanted)


@pytest.mark.parametrize("module", MODULES)
def test_recipes_are_recipes(module: str) -> None:
    changes = importlib.import_module(f"pmsi.models.{module}").RECIPE
    recipe = replace(RECIPES["paper"], **changes)
    assert len(list_phases(recipe)) == (4 if module == "pmg" else 1)


@pytest.mark.parametrize(
    ("name", "new"),
    [("baseline", 256_200), ("bcnn", 20_480_200), ("hbp", 19_357_896), ("pc", 256_200), ("api", 2_224_072)]
    + [("cnl", 464_200), ("pmg", 7_483_040)],
)
def test_parameters_on_mobilenet_v2(name: str, new: int) -> None:
    """For 200 classes. B-CNN leaves out the last convolution, 412,160 parameters."""
    groups = RIVALS[name](make_mobilenet_v2(), 200).parameter_groups()
    assert [count(group) for group in groups] == [2_223_872 - (412_160 if name == "bcnn" else 0), new]


# Learning: twelve images of random pixels, three classes, the whole set in every step.

LEARNING: dict[str, dict[str, Any]] = {"pc": {"confusion_weight": 0.1}}  # 10 keeps three classes all but uniform


@pytest.mark.parametrize("name", RIVALS)
def test_loss_falls_by_half(name: str) -> None:
    """Within 20 steps; of PMG, 20 mini-batches of four phases on raw images."""
    network = make_rival(name, **LEARNING.get(name, {})).train()
    split = make_dataset(side=32).train
    order = split.labels.argsort()  # pairs of one class have no confusion
    images, labels = split.images[order] / 127.5 - 1, split.labels[order]
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-2)
    outputs = (0, 1, 2, None) if name == "pmg" else (None,)
    losses = []
    for _ in range(20):
        for output in outputs:
            loss = network.loss(images, labels, output)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


# Baseline


def test_baseline_is_pooling_dropout_and_a_linear_layer() -> None:
    network = Baseline(make_identity(), 2, dropout=0.2)
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(network.eval()(images).concat, network.classifier[1](images.mean((2, 3))))
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.2]


# PMG


def test_pmg_is_pmsi_without_interaction() -> None:
    assert isinstance(make_rival("pmg"), PMSI)
    assert not list(PMG(make_backbone(), 3).mlp.parameters())


def test_pmg_widths() -> None:
    """On ResNet-50 the rule gives the published widths."""
    rule, published = (
        PMG(make_real("resnet50"), 200, **widths).parameter_groups()[1] for widths in ({}, pmg.PUBLISHED_WIDTHS)
    )
    assert [p.shape for p in rule] == [p.shape for p in published]
    network = PMG(make_mobilenet_v2(), 200, **pmg.PUBLISHED_WIDTHS)
    last = network.concat_classifier
    assert [layer.in_features for layer in last if isinstance(layer, nn.Linear)] == [3072, 512]


def test_pmg_phases() -> None:
    recipe = replace(RECIPES["paper"], **pmg.RECIPE)
    phases = list_phases(recipe)
    assert [2**phase.recursions for phase in phases] == [8, 4, 2, 1]
    assert [phase.output for phase in phases] == [0, 1, 2, None]
    assert [phase.weight for phase in phases] == [1, 1, 1, 2]


def test_pmg_keeps_deeper_stages_out_of_a_phase() -> None:
    network = make_rival("pmg")
    torch.autograd.backward(network.loss(torch.randn(4, 3, 32, 32), torch.arange(4) % 3, 0))
    touched = {name.split(".")[2] for name, p in network.backbone.named_parameters(prefix="b") if p.grad is not None}
    assert touched == {"0", "1", "2"}


# B-CNN


def test_bcnn_by_hand() -> None:
    """Two places of three channels: X X^T / 2, signed root, L2 norm."""
    network = BCNN(make_identity(), 2)
    network.add_module("classifier", nn.Identity())
    maps = torch.tensor([[1.0, -2.0], [3.0, 4.0], [0.0, 0.0]]).view(1, 3, 1, 2)
    by_hand = torch.tensor([2.5, -2.5, 0, -2.5, 12.5, 0, 0, 0, 0])
    by_hand = by_hand.sign() * by_hand.abs().sqrt()
    torch.testing.assert_close(network(maps).concat[0], by_hand / by_hand.norm(), rtol=1e-5, atol=1e-6)


def test_bcnn_is_finite_on_signed_and_empty_maps() -> None:
    network = BCNN(make_identity(), 2)
    for maps in (-torch.rand(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)):
        maps.requires_grad_()
        loss = network.loss(maps, torch.tensor([0, 1]))
        [gradient] = torch.autograd.grad(loss, maps)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_bcnn_takes_a_map_that_is_narrow_enough() -> None:
    images = torch.rand(1, 3, 64, 64)
    backbone = make_mobilenet_v2().eval()
    [used] = BCNN(backbone, 2).backbone(images)
    assert torch.equal(used, backbone.forward_blocks(images)[4][3])
    assert BCNN(make_real("resnet18"), 2).classifier.in_features == 512**2
    with pytest.raises(ValueError, match=r"2048 channels or more, and 512 already make 262,144 features; give width"):
        BCNN(make_real("resnet50"), 2)
    assert BCNN(make_real("resnet50"), 2, width=8).classifier.in_features == 64


# HBP


def test_hbp_by_hand() -> None:
    """Projections that say (1, 4), (9, -1), (-1, 1) everywhere; pairs (1, 2), (1, 3), (2, 3) in this order."""
    network = HBP(make_identity(blocks=3), 2, width=2)
    network.add_module("classifier", nn.Identity())
    for projection, said in zip(network.projections, ([1, 4], [9, -1], [-1, 1]), strict=True):
        assert isinstance(projection, nn.Conv2d)
        nn.init.zeros_(projection.weight)
        assert projection.bias is not None
        projection.bias.data = torch.tensor(said, dtype=torch.float32)
    by_hand = [torch.tensor(pair) / torch.tensor(pair).norm() for pair in ([3.0, -2.0], [-1.0, 2.0], [-3.0, -1.0])]
    torch.testing.assert_close(network(torch.rand(1, 3, 4, 5)).concat[0], torch.cat(by_hand))


def test_hbp_takes_the_deepest_maps() -> None:
    network = HBP(make_mobilenet_v2(), 2, width=4)
    assert [conv.in_channels for conv in network.projections if isinstance(conv, nn.Conv2d)] == [160, 320, 1280]
    with pytest.raises(ValueError, match=r"maps must lie in 2\.\.2, the blocks of the last stage; got 3"):
        HBP(make_real("resnet18"), 2)
    assert HBP(make_real("resnet18"), 2, maps=2, width=4).pairs == [(0, 1)]


# CNL


@pytest.mark.parametrize("training", [True, False])
def test_cnl_is_the_baseline_at_initialisation(training: bool) -> None:
    network = CNL(make_backbone(), 3, dropout=0).train(training)
    images = torch.randn(4, 3, 32, 32)
    [last] = network.backbone(images)
    assert torch.equal(network(images).concat, network.classifier(last.mean((2, 3))))
    for norm in find_norms(network.cnl):
        nn.init.ones_(norm.weight)
    assert not torch.equal(network(images).concat, network.classifier(last.mean((2, 3))))


def test_cnl_attention_by_hand() -> None:
    """The formula written out, for two responses of other sizes; 1e-5 for another order of summation."""
    module = CrossLayerNonLocal(4, [3, 5], planes=2).eval()
    for norm in find_norms(module):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    for parameter in (module.query.weight, module.out.weight, *module.keys.parameters(), *module.values.parameters()):
        nn.init.normal_(parameter)
    query, responses = torch.randn(2, 4, 3, 3), [torch.randn(2, 3, 6, 5), torch.randn(2, 5, 4, 4)]
    by_hand = torch.zeros_like(query)
    for key, value, norm, response in zip(module.keys, module.values, find_norms(module), responses, strict=True):
        t, p, g = (x.flatten(2) for x in (module.query(query), key(response), value(response)))
        attention = (torch.einsum("bci,bcj->bij", t, p) / 2**0.5).softmax(2)
        found = torch.einsum("bij,bcj->bci", attention, g).view(2, 2, 3, 3)
        by_hand += norm(module.out(found))
    torch.testing.assert_close(module(query, responses), by_hand, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "query", "responses", "planes"),
    [
        ("mobilenet_v2", 320, [32, 32, 64, 96, 96], 160),
        ("resnet18", 512, [128, 256], 256),
        ("resnet50", 2048, [512, 512, 1024, 1024, 1024], 256),
    ],
)
def test_cnl_places(name: str, query: int, responses: list[int], planes: int) -> None:
    cnl = CNL(make_real(name), 2).cnl
    assert (cnl.query.in_channels, cnl.query.out_channels) == (query, planes)
    assert [key.in_channels for key in cnl.keys if isinstance(key, nn.Conv2d)] == responses


@pytest.mark.parametrize(("name", "option"), [("bcnn", "width"), ("hbp", "width"), ("cnl", "planes")])
def test_widths_below_one_are_refused(name: str, option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option} must be 1 or more, got 0"):
        RIVALS[name](make_backbone(), 3, **{option: 0})
