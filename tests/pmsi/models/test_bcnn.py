"""B-CNN against a case worked by hand, and the map that it takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pmsi.models.backbones import make_backbone as make_real
from pmsi.models.backbones import make_mobilenet_v2
from pmsi.models.bcnn import BCNN
from tests.helpers.small_run import make_identity_backbone


def test_bcnn_by_hand() -> None:
    """Two places of three channels: X X^T / 2, signed root, L2 norm."""
    network = BCNN(make_identity_backbone(), 2)
    network.add_module("classifier", nn.Identity())
    maps = torch.tensor([[1.0, -2.0], [3.0, 4.0], [0.0, 0.0]]).view(1, 3, 1, 2)
    by_hand = torch.tensor([2.5, -2.5, 0, -2.5, 12.5, 0, 0, 0, 0])
    by_hand = by_hand.sign() * by_hand.abs().sqrt()
    torch.testing.assert_close(network(maps).concat[0], by_hand / by_hand.norm(), rtol=1e-5, atol=1e-6)


def test_bcnn_is_finite_on_signed_and_empty_maps() -> None:
    network = BCNN(make_identity_backbone(), 2)
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
