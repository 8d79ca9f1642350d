"""Costs of networks, by hand, and the bounds that the recipe for phones keeps."""

from __future__ import annotations

import torch
from torch import nn

from pmsi.experiments.tables import Row, table_rows
from pmsi.models.cost import count_int8_bytes, measure_cost
from pmsi.models.describe import describe_network
from pmsi.models.pmsi import PMSI
from pmsi.models.registry import make_network
from pmsi.recipe import RECIPES
from pmsi.report.mobile import MOST_MACS, MOST_MEGABYTES
from tests.helpers.small_run import make_backbone


def test_macs_are_those_of_the_parts_and_the_network_is_left_as_it_is() -> None:
    network = PMSI(make_backbone(), 3, feature_width=16, hidden_width=8)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    found, parts = measure_cost(network, 64), describe_network(network, 64, inputs=1)
    assert found["macs"] == parts.backbone_macs + parts.head_macs
    assert found["parameters"] == parts.backbone_parameters + parts.head_parameters
    assert found["int8_bytes"] == parts.int8_bytes
    assert network.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_int8_bytes_by_hand() -> None:
    layers = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, 5, bias=False))
    assert count_int8_bytes(layers) == (6 * 2 * 9 + 4 * 6) + (6 * 5 + 4 * 5)


def test_networks_for_phones_are_cheap_enough() -> None:
    """The chosen one at the paper's size and a small one, where linear layers weigh more, and the others there."""
    rows = table_rows("mobile", Row(RECIPES["mobile"])) | {"mobile": Row(RECIPES["mobile"])}
    with torch.device("meta"):  # a fifth of the time
        networks = {
            name: make_network(row.recipe, 200)
            for name, row in rows.items()
            if name not in ("full", "narrow", "separable")  # which show what more would bring
        }
    for size, names in ((448, ("baseline", "mobile")), (96, networks)):
        costs = {name: measure_cost(networks[name], size) for name in names}
        for name, cost in costs.items():
            assert cost["macs"] <= MOST_MACS * costs["baseline"]["macs"], name
            assert cost["int8_bytes"] <= MOST_MEGABYTES * 1e6, name
