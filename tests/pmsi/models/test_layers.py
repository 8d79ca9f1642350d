"""Layers tuned for CPUs: results, gradients and names of torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pmsi.models.backbones import make_mobilenet_v2
from pmsi.models.layers import InplaceReLU6, PointwiseConv2d, tune_layers
from tests.helpers.oracle import seeded


def test_relu6_in_place_has_the_bits_and_gradients_of_torchs() -> None:
    values = torch.tensor([-torch.inf, -1.0, -0.0, 0.0, 1e-30, 3.0, 6.0, 6.0001, torch.inf, torch.nan])
    found = []
    for layer in (nn.ReLU6(), InplaceReLU6()):
        leaf = values.clone().requires_grad_()
        out = layer(leaf * 1)
        out.backward(torch.arange(1.0, 11.0))
        found.append((out.detach(), leaf.grad))
    for own, torchs in zip(*found, strict=True):
        assert own is not None
        assert torchs is not None
        assert torch.equal(own.nan_to_num(-7), torchs.nan_to_num(-7))


def test_relu6_in_place_holds_its_output_alone() -> None:
    x, held = torch.randn(8).requires_grad_() + 0, list[int]()

    def keep(saved: torch.Tensor) -> torch.Tensor:
        held.append(saved.data_ptr())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        out = InplaceReLU6()(x)
    assert held == [out.data_ptr()]  # torch's own holds a clone of the input


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [False, True])
def test_pointwise_convolutions_are_those_of_torch_up_to_rounding(layout: torch.memory_format, *, bias: bool) -> None:
    conv = nn.Conv2d(6, 10, 1, bias=bias).double()
    images = torch.rand(3, 6, 5, 7, generator=seeded(1), dtype=torch.float64).contiguous(memory_format=layout)
    found = []
    for layer in (conv, PointwiseConv2d(conv)):
        x = images.clone(memory_format=torch.preserve_format).requires_grad_()
        conv.zero_grad()
        out = layer(x)
        out.square().sum().backward()
        found.append((out, x.grad, *(parameter.grad for parameter in conv.parameters())))
        assert out.stride() == conv(images).stride()
    for own, torchs in zip(*found, strict=True):
        torch.testing.assert_close(own, torchs, rtol=1e-12, atol=1e-12)


def test_other_convolutions_and_activations_stay() -> None:
    kept = nn.Sequential(
        nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1, stride=2), nn.Conv2d(4, 4, 1, padding=1), nn.Conv2d(4, 4, 1, groups=2)
    )
    kept.extend([nn.ReLU6(), nn.ReLU(inplace=True)])
    before = list(kept)
    tune_layers(kept)
    assert list(kept) == before


def test_a_tuned_backbone_has_the_same_state_and_maps() -> None:
    plain = make_mobilenet_v2().to(memory_format=torch.channels_last)
    tuned = copy.deepcopy(plain)
    tune_layers(tuned)
    assert sum(isinstance(module, PointwiseConv2d) for module in tuned.modules()) == 34
    assert sum(isinstance(module, InplaceReLU6) for module in tuned.modules()) == 35
    assert list(tuned.state_dict()) == list(plain.state_dict())
    images = torch.rand(2, 3, 64, 64, generator=seeded(2)).contiguous(memory_format=torch.channels_last)
    for own, torchs in zip(tuned.eval()(images, 5), plain.eval()(images, 5), strict=True):
        assert own.stride() == torchs.stride()
        torch.testing.assert_close(own, torchs, rtol=1e-4, atol=1e-5)


def test_a_tuned_network_is_exported_with_torchs_own_layers() -> None:
    block = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(inplace=True)).to(memory_format=torch.channels_last)
    tune_layers(block)
    images = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    graph = torch.export.export(block.eval(), (images,)).graph
    called = {str(node.target) for node in graph.nodes if node.op == "call_function"}
    assert called == {"aten.conv2d.default", "aten.hardtanh_.default"}


def test_gradients_of_functions_go_through_tuned_layers() -> None:
    block = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(inplace=True)).to(memory_format=torch.channels_last)
    tune_layers(block)
    images = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    parameters = dict(block.named_parameters())
    found = torch.func.grad(lambda values: torch.func.functional_call(block, values, (images,)).sum())(parameters)
    block(images).sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(found[name], parameter.grad)
