"""The plain side: inputs of every phase from files, and two optimisers that step once per phase."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.training.plain import PHASES, PlainInput, PlainTrainer
from pmsi.models.layers import InplaceReLU6
from pmsi.models.registry import make_network
from tests.helpers.small_run import RECIPE

SMALL = replace(RECIPE, epochs=1)
CPU = torch.device("cpu")


@pytest.mark.usefixtures("one_worker")
def test_an_epoch_gives_each_phase_its_images(photos: Path) -> None:
    side = PlainInput(photos, SMALL, CPU)
    seen = 0
    for inputs, labels in side.batches(0):
        *mosaics, raw = list(inputs)
        assert raw.shape == (SMALL.batch_size, 3, SMALL.crop, SMALL.crop)
        assert all(torch.equal(made.flatten().sort().values, raw.flatten().sort().values) for made in mosaics)
        assert not any(torch.equal(made, raw) for made in mosaics)
        seen += len(labels)
    assert seen == 8 // SMALL.batch_size * SMALL.batch_size


@pytest.mark.usefixtures("small_backbone")
def test_a_step_trains_on_every_phase() -> None:
    network = make_network(SMALL, 3)
    trainer = PlainTrainer(network, SMALL, steps=4)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]
    images, labels = torch.rand(SMALL.batch_size, 3, SMALL.crop, SMALL.crop), torch.arange(SMALL.batch_size) % 3
    losses = trainer.step([images] * len(PHASES), labels)
    assert len(losses) == 4
    assert min(losses) > 0
    assert any(not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
    assert rates == [SMALL.lr_backbone, SMALL.lr_new]
    assert all(
        optimizer.param_groups[0]["lr"] < rate for optimizer, rate in zip(trainer.optimizers, rates, strict=True)
    )


def test_the_network_has_layers_of_torch() -> None:
    network = PlainTrainer(make_network(SMALL, 3), SMALL, steps=4).network
    kinds = {type(module) for module in network.modules()}
    assert nn.ReLU6 in kinds
    assert InplaceReLU6 not in kinds
