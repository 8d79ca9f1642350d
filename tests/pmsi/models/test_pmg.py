"""PMG: PMSI without interaction, in its published sizes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from pmsi.models.backbones import make_backbone as make_real
from pmsi.models.backbones import make_mobilenet_v2
from pmsi.models.pmg import PMG, PUBLISHED_WIDTHS
from pmsi.models.pmsi import PMSI
from pmsi.recipe import RECIPES
from pmsi.training.phases import list_phases
from tests.helpers.small_run import make_backbone


def test_pmg_is_pmsi_without_interaction() -> None:
    assert isinstance(PMG(make_backbone(), 3, feature_width=16, hidden_width=8), PMSI)
    assert not list(PMG(make_backbone(), 3).mlp.parameters())


def test_pmg_widths() -> None:
    """On ResNet-50 the rule gives the published widths."""
    rule, published = (
        PMG(make_real("resnet50"), 200, **widths).parameter_groups()[1] for widths in ({}, PUBLISHED_WIDTHS)
    )
    assert [p.shape for p in rule] == [p.shape for p in published]
    network = PMG(make_mobilenet_v2(), 200, **PUBLISHED_WIDTHS)
    last = network.concat_classifier
    assert [layer.in_features for layer in last if isinstance(layer, nn.Linear)] == [3072, 512]


def test_pmg_phases() -> None:
    recipe = replace(RECIPES["paper"], **PMG.recipe)
    phases = list_phases(recipe)
    assert [2**phase.recursions for phase in phases] == [8, 4, 2, 1]
    assert [phase.output for phase in phases] == [0, 1, 2, None]
    assert [phase.weight for phase in phases] == [1, 1, 1, 2]


def test_pmg_keeps_deeper_stages_out_of_a_phase() -> None:
    network = PMG(make_backbone(), 3, feature_width=16, hidden_width=8)
    torch.autograd.backward(network.loss(torch.randn(4, 3, 32, 32), torch.arange(4) % 3, 0))
    touched = {name.split(".")[2] for name, p in network.backbone.named_parameters(prefix="b") if p.grad is not None}
    assert touched == {"0", "1", "2"}
