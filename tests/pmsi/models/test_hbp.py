"""HBP against a case worked by hand, and the maps that it takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pmsi.models.backbones import make_backbone as make_real
from pmsi.models.backbones import make_mobilenet_v2
from pmsi.models.hbp import HBP
from tests.helpers.small_run import make_identity_backbone


def test_hbp_by_hand() -> None:
    """Projections that say (1, 4), (9, -1), (-1, 1) everywhere; pairs (1, 2), (1, 3), (2, 3) in this order."""
    network = HBP(make_identity_backbone(blocks=3), 2, width=2)
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
