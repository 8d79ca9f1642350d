"""The interface of networks: logits, loss and parameter groups."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mosaicaug
from pmsi.experiments.tables import rival_recipe
from pmsi.models.backbones import Backbone
from pmsi.models.base import Logits, Network
from pmsi.models.registry import make_network
from pmsi.recipe import RECIPES, Recipe
from pmsi.recipe.networks import NETWORKS
from tests.helpers.small_run import RECIPE, make_identity_backbone


class Two(Network):
    """Two stages and a concat, all of them the mean of the image times a number."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__(backbone, num_classes)
        self.new = nn.Linear(3, num_classes)

    def forward(self, images: Tensor) -> Logits:
        one: Tensor = self.new(images.mean((2, 3)))
        return Logits((one, 2 * one), 3 * one)


def test_mix_is_the_sum_and_outputs_are_picked_by_number() -> None:
    logits = Logits((torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, 20.0]])), torch.tensor([[100.0, 200.0]]))
    assert logits.mix.tolist() == [[111.0, 222.0]]
    assert [logits.pick(output) is part for output, part in ((0, logits.stages[0]), (1, logits.stages[1]))] == [
        True
    ] * 2
    assert logits.pick(None) is logits.concat
    for output in (-1, 2):
        with pytest.raises(ValueError, match=f"output must be None or one of 2 stages, counted from 0; got {output}"):
            logits.pick(output)


def test_the_loss_is_the_cross_entropy_of_one_output_with_smoothing() -> None:
    network, images, labels = Two(make_identity_backbone(), 4), torch.rand(5, 3, 4, 4), torch.arange(5) % 4
    network.label_smoothing = 0.2
    for output in (None, 0, 1):
        wanted = mosaicaug.cross_entropy(network(images).pick(output), labels, label_smoothing=0.2)
        assert torch.equal(network.loss(images, labels, output), wanted)


def test_groups_are_the_backbone_and_the_rest() -> None:
    backbone = make_identity_backbone()
    backbone.stages[0] = nn.Conv2d(3, 3, 1)
    old, new = Two.from_recipe(backbone, 4, Recipe()).parameter_groups()
    assert [tuple(p.shape) for p in old] == [(3, 3, 1, 1), (3,)]
    assert [tuple(p.shape) for p in new] == [(4, 3), (4,)]


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="Two: needs 2 classes or more, got 1"):
        Two(make_identity_backbone(), 1)


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("name", ["pmsi", "baseline", "pmg"])
def test_labels_are_smoothed_in_the_loss(name: Any) -> None:
    """By hand: 1 - s of the label's, and s of the mean over classes."""
    change: dict[str, Any] = {"network": name, "interaction": name == "pmsi", "progressive": name != "baseline"}
    recipe = replace(RECIPE, label_smoothing=0.2, augmentation="none", **change)
    network = make_network(recipe, 3).eval()
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 2, 1, 1])
    for output in [0, None] if name != "baseline" else [None]:
        logs = network(images).pick(output).log_softmax(1)
        wanted = -(0.8 * logs[range(4), labels] + 0.2 * logs.mean(1)).mean()
        torch.testing.assert_close(network.loss(images, labels, output), wanted)
        assert not torch.allclose(wanted, mosaicaug.cross_entropy(network(images).pick(output), labels))


class Apart(Network):
    """Two stages and a concat with a linear layer each, on the mean of the image."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__(backbone, num_classes)
        self.one, self.two, self.all = (nn.Linear(3, num_classes) for _ in range(3))

    def forward(self, images: Tensor) -> Logits:
        pooled = images.mean((2, 3))
        return Logits((self.one(pooled), self.two(pooled)), self.all(pooled))


@pytest.mark.parametrize("kind", ["labels", "mixed", "soft"])
def test_the_mix_teaches_the_concat_alone(kind: str) -> None:
    """By hand: minus the mean log-probability of the concat under the probabilities of the mix."""
    network, images, labels = Apart(make_identity_backbone(), 4), torch.rand(5, 3, 4, 4), torch.arange(5) % 4
    mixed = mosaicaug.Targets(labels, labels.flip(0), torch.full((5,), 0.75), torch.full((5,), 0.25))
    kinds: dict[str, Tensor | mosaicaug.Targets] = {"labels": labels, "mixed": mixed, "soft": mixed.to_soft(4)}
    targets = kinds[kind]
    plain = [network.loss(images, targets, output) for output in (None, 0, 1)]
    logits: Logits = network(images)
    teacher = (logits.concat + sum(logits.stages)).softmax(1)
    gained = -(teacher * logits.concat.log_softmax(1)).sum(1).mean()
    network.distill_weight = 0.5
    torch.testing.assert_close(network.loss(images, targets), plain[0] + 0.5 * gained)
    assert [torch.equal(network.loss(images, targets, n), plain[1 + n]) for n in (0, 1)] == [True, True]
    # Gradients: none for the stages; the teacher is a constant.
    torch.autograd.backward(network.loss(images, targets))
    weights = (network.one.weight, network.two.weight, network.all.weight)
    assert [weight.grad is None for weight in weights] == [True, True, False]
    student = network(images).concat
    constant = -(teacher.detach() * student.log_softmax(1)).sum(1).mean()
    (wanted,) = torch.autograd.grad(mosaicaug.cross_entropy(student, targets) + 0.5 * constant, network.all.weight)
    torch.testing.assert_close(network.all.weight.grad, wanted)


@pytest.mark.usefixtures("small_backbone")
def test_a_concat_without_trained_stages_has_no_teacher() -> None:
    recipe = replace(RECIPE, augmentation="none", distill_weight=0.5)
    assert make_network(recipe, 3).distill_weight == 0.5
    assert make_network(replace(recipe, progressive=False), 3).distill_weight == 0


@pytest.mark.parametrize("name", ["pc", "api"])
def test_losses_of_comparisons_are_not_smoothed(name: Any) -> None:
    smoothed = replace(RECIPES["modern"], label_smoothing=0.1)
    recipe = rival_recipe(name, smoothed)
    assert recipe.label_smoothing == 0
    with pytest.raises(ValueError, match=f"recipe: network {name} has a loss of its own, so it needs label_smoothing="):
        replace(recipe, label_smoothing=0.1)
    assert {rival_recipe(rival, smoothed).network for rival in NETWORKS} == {*NETWORKS}


def test_an_exported_network_can_be_saved() -> None:
    network, images, file = Two(make_identity_backbone(), 4).eval(), torch.rand(2, 3, 8, 8), io.BytesIO()
    torch.export.save(torch.export.export(network, (images,)), file)
    file.seek(0)
    logits = torch.export.load(file).module()(images)
    assert isinstance(logits, Logits)
    assert torch.equal(logits.mix, network(images).mix)
