"""The network: its size, its wiring (Eq. 1 to 8) and its switches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pmsi.models import registry as build
from pmsi.models.backbones import make_mobilenet_v2
from pmsi.models.base import Logits
from pmsi.models.pmsi import PMSI
from pmsi.recipe import RECIPES
from tests.helpers.small_run import catch_inputs, make_backbone


def make_network(*, stages: int = 3, interaction: bool = True, dropout: float = 0.5) -> PMSI:
    network = PMSI(
        make_backbone(),
        3,
        stages=stages,
        interaction=interaction,
        feature_width=16,
        hidden_width=8,
        dropout=dropout,
    )
    return network.eval()


def watch_vectors(network: PMSI) -> tuple[list[Tensor], list[list[Tensor]]]:
    """x_n of every stage and m_n, the inputs of the classifiers, from now on."""
    vectors: list[Tensor] = []
    for smooth in network.smooth:
        smooth.register_forward_hook(lambda _, __, found: vectors.append(found.detach().flatten(2).max(2).values))
    return vectors, [catch_inputs(classifier) for classifier in network.classifiers]


def test_published_size() -> None:
    backbone, new = PMSI(make_mobilenet_v2(), 200).parameter_groups()
    assert sum(p.numel() for p in backbone) == 2_223_872
    assert sum(p.numel() for p in new) == 8_303_200


def test_every_parameter_is_in_one_group() -> None:
    network = make_network()
    groups = network.parameter_groups()
    assert [id(p) for p in groups[0]] == [id(p) for p in network.backbone.parameters()]
    assert sorted(id(p) for group in groups for p in group) == sorted(id(p) for p in network.parameters())


@pytest.mark.parametrize("interaction", [True, False])
@pytest.mark.parametrize("output", [0, 1, 2])
def test_a_phase_without_deeper_heads_leaves_their_layers_out(output: int, interaction: bool) -> None:
    network, images, labels = (
        make_network(interaction=interaction),
        torch.rand(4, 3, 64, 64),
        torch.tensor([0, 1, 2, 0]),
    )
    network.train().deeper_heads = False
    counts = {name: int(value) for name, value in network.named_buffers() if name.endswith("batches_tracked")}
    torch.autograd.backward(network.loss(images, labels, output))
    # Of the backbone's stages the last three have heads.
    run = {name.rsplit(".", 1)[0] for name, value in network.named_buffers() if name in counts and value > counts[name]}
    assert {name for name in run if name.startswith("backbone.stages")} == {
        name.rsplit(".", 1)[0]
        for name in counts
        if name.startswith("backbone.stages") and int(name.split(".")[2]) < 3 + output
    }
    assert {int(name.split(".")[1]) for name in run if name.startswith("smooth")} == {*range(output + 1)}
    learning = {name for name, value in network.named_parameters() if value.grad is not None}
    assert not {name for name in learning if name.startswith(f"classifiers.{output + 1}")}
    assert any(name.startswith("mlp") for name in learning) == interaction


def test_zeros_take_the_place_of_deeper_vectors() -> None:
    network, images, labels = make_network(), torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
    network.label_smoothing = 0.1
    for parameter in network.mlp.parameters():
        parameter.data *= 30
    vectors, _ = watch_vectors(network)
    network(images)
    for output in range(3):
        known = [x if n <= output else torch.zeros_like(x) for n, x in enumerate(vectors[:3])]
        x, mutual = known[output], network.mlp(torch.cat(known, 1))
        logits = network.classifiers[output](x + torch.sigmoid(mutual * x) * x)
        network.deeper_heads = False
        want = cross_entropy(logits, labels, label_smoothing=0.1)
        assert torch.allclose(network.loss(images, labels, output), want, atol=1e-6)
        network.deeper_heads = True
        assert torch.allclose(network.loss(images, labels, output), want, atol=1e-6) == (output == 2)
    network.deeper_heads = False
    assert network.loss(images, labels) == cross_entropy(network(images).concat, labels, label_smoothing=0.1)


@pytest.mark.parametrize(("stem_stride", "largest"), [(2, 32), (1, 64)])
def test_stages_are_resolution_levels(stem_stride: int, largest: int) -> None:
    backbone = make_mobilenet_v2(stem_stride=1 if stem_stride == 1 else 2).eval()
    with torch.inference_mode():
        maps = backbone(torch.rand(1, 3, 64, 64), 5)
    sizes = [largest // 2**k for k in range(5)]
    assert [tuple(x.shape[1:]) for x in maps] == [
        (width, side, side) for width, side in zip((32, 24, 32, 96, 1280), sizes, strict=True)
    ]
    assert backbone.widths == (32, 24, 32, 96, 1280)


def test_signed_bottlenecks_and_activated_ends() -> None:
    """Stages 2 to 4 end in linear bottlenecks, 1 and 5 in ReLU6."""
    with torch.inference_mode():
        maps = make_mobilenet_v2()(torch.randn(2, 3, 64, 64), 5)
    assert [bool((x < 0).any()) for x in maps] == [False, True, True, True, False]


def test_gate_without_interaction_vector_is_a_half() -> None:
    network = make_network()
    last = network.mlp[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    vectors, inputs = watch_vectors(network)
    network(torch.randn(4, 3, 32, 32))
    for x, (m,) in zip(vectors, inputs, strict=True):
        assert x.any()
        torch.testing.assert_close(m, 1.5 * x, rtol=0, atol=0)


def test_gate_and_mlp_by_hand() -> None:
    """x_m is affine in the vectors (no activation between the layers); 1e-5 for another order of summation."""
    network = make_network()
    vectors, inputs = watch_vectors(network)
    network(torch.randn(4, 3, 32, 32))
    first, _, last = network.mlp
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    weight = last.weight @ first.weight
    mutual = torch.cat(vectors, 1) @ weight.T + last.weight @ first.bias + last.bias
    for x, (m,) in zip(vectors, inputs, strict=True):
        torch.testing.assert_close(m, x + x / (1 + torch.exp(-mutual * x)), rtol=1e-5, atol=1e-6)


def test_dropout_stands_between_the_layers_of_the_mlp() -> None:
    network = make_network(dropout=0.3)
    assert [type(layer) for layer in network.mlp] == [nn.Linear, nn.Dropout, nn.Linear]
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.3]


def test_without_interaction_the_vectors_go_through() -> None:
    network = make_network(interaction=False)
    vectors, inputs = watch_vectors(network)
    network(torch.randn(4, 3, 32, 32))
    assert not list(network.mlp.parameters())
    for x, (m,) in zip(vectors, inputs, strict=True):
        torch.testing.assert_close(m, x, rtol=0, atol=0)


@pytest.mark.parametrize("interaction", [True, False])
def test_concat_is_shallow_to_deep(interaction: bool) -> None:
    network = make_network(interaction=interaction)
    _, inputs = watch_vectors(network)
    concat = catch_inputs(network.concat_classifier)
    logits = network(torch.randn(4, 3, 32, 32))
    assert torch.equal(concat[0], torch.cat([m for (m,) in inputs], 1))
    first = [smooth[0] for smooth in network.smooth if isinstance(smooth, nn.Sequential)]
    assert [conv.in_channels for conv in first if isinstance(conv, nn.Conv2d)] == [8, 10, 12]
    for classify, (m,), said in zip(network.classifiers, inputs, logits.stages, strict=True):
        assert torch.equal(classify(m), said)


def test_mix_is_the_sum_of_logits() -> None:
    logits = make_network()(torch.randn(4, 3, 32, 32))
    by_hand = logits.stages[0] + logits.stages[1] + logits.stages[2] + logits.concat
    torch.testing.assert_close(logits.mix, by_hand)
    ones = torch.ones(2, 5)
    assert torch.equal(Logits((ones, 2 * ones), 4 * ones).mix, 7 * ones)


@pytest.mark.parametrize("interaction", [True, False])
@pytest.mark.parametrize("stages", [1, 2, 3, 4, 5])
def test_any_number_of_stages(stages: int, interaction: bool) -> None:
    network = make_network(stages=stages, interaction=interaction)
    logits = network(torch.randn(4, 3, 32, 32))
    assert [tuple(one.shape) for one in (*logits.stages, logits.concat, logits.mix)] == [(4, 3)] * (stages + 2)


def test_one_stage_concatenates_its_output_and_the_mutual_vector() -> None:
    network = make_network(stages=1)
    vectors, inputs = watch_vectors(network)
    concat = catch_inputs(network.concat_classifier)
    network(torch.randn(4, 3, 32, 32))
    assert torch.equal(concat[0], torch.cat([inputs[0][0], network.mlp(vectors[0])], 1))


@pytest.mark.parametrize("stages", [0, 6, -1])
def test_other_numbers_of_stages_are_refused(stages: int) -> None:
    with pytest.raises(ValueError, match=rf"stages must lie in 1\.\.5, got {stages}"):
        make_network(stages=stages)


def test_separable_convolutions_are_a_depthwise_and_a_pointwise_one() -> None:
    network = PMSI(make_backbone(), 3, feature_width=16, hidden_width=6, smooth="separable", smooth_width=8).eval()
    for smooth, channels in zip(network.smooth, (8, 10, 12), strict=True):
        assert isinstance(smooth, nn.Sequential)
        shapes = [tuple(one.weight.shape) for one in smooth if isinstance(one, nn.Conv2d)]
        assert shapes == [(8, channels, 1, 1), (8, 1, 3, 3), (16, 8, 1, 1)]
        assert {one.momentum for one in smooth if isinstance(one, nn.BatchNorm2d)} == {0.01}
        x = torch.randn(2, channels, 4, 4)
        by_hand = x
        for first, norm in zip(smooth[::3], smooth[1::3], strict=True):
            by_hand = norm(first(by_hand)).relu()
        torch.testing.assert_close(smooth(x.clone()), by_hand)
        assert smooth(x).shape == (2, 16, 4, 4)


def test_recipe_chooses_the_smooth_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmsi.models.registry.make_backbone", lambda *_, **__: make_backbone())
    state = build.make_network(replace(RECIPES["paper"], smooth="separable", smooth_width=7), 3).state_dict()
    assert state["smooth.0.6.weight"].shape == (6, 7, 1, 1)
    assert "smooth.0.6.weight" not in build.make_network(RECIPES["paper"], 3).state_dict()
    odd: Any = "depthwise"
    with pytest.raises(ValueError, match="PMSI: smooth must be one of full, separable; got 'depthwise'"):
        PMSI(make_backbone(), 3, smooth=odd)


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="2 classes or more, got 1"):
        PMSI(make_backbone(), 1)


def test_batch_norm_of_the_new_layers_has_the_published_momentum() -> None:
    network = make_network()
    assert {m.momentum for m in network.smooth.modules() if isinstance(m, nn.BatchNorm2d)} == {0.01}
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm1d)} == {0.1}


def test_recipe_sets_the_momentum_of_the_other_batch_norms() -> None:
    network = build.make_network(replace(RECIPES["paper"], batch_norm_momentum=0.3), 3)
    kinds = nn.BatchNorm1d | nn.BatchNorm2d
    momenta = {name: module.momentum for name, module in network.named_modules() if isinstance(module, kinds)}
    assert {momentum for name, momentum in momenta.items() if name.startswith("smooth")} == {0.01}
    assert {momentum for name, momentum in momenta.items() if not name.startswith("smooth")} == {0.3}
    assert len(momenta) == 52 + 6 + 8
