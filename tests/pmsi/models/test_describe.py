"""What `describe` says: sizes and costs that are known, and fields held to gradients."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from pmsi.models.backbones import Backbone, make_backbone, make_mobilenet_v2
from pmsi.models.baseline import Baseline
from pmsi.models.cnl import CNL
from pmsi.models.describe import describe_network, least_grid, least_recursions, print_description
from pmsi.models.hbp import HBP
from pmsi.models.pmsi import PMSI
from tests.helpers.small_run import make_backbone as make_tiny


def make_chain(*layers: nn.Module) -> Baseline:
    """A network of these layers as stages of three channels each."""
    return Baseline(Backbone(list(layers), (3,) * len(layers)), 2)


def make_kernel(side: int, values: Sequence[float] | None = None, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution of each channel with a given kernel, of ones by default, that keeps the middle in the middle."""
    padding = dilation * (side - 1) // 2
    conv = nn.Conv2d(3, 3, side, stride, padding, dilation, groups=3, bias=False)
    kernel = torch.ones(side, side) if values is None else torch.tensor(values).view(side, side)
    conv.weight.data = kernel.expand(3, 1, side, side).clone()
    return conv


def find_support(maps: Tensor, images: Tensor) -> tuple[int, int]:
    """Height and width of the part of the images that the central place depends on."""
    row, column = maps.shape[2] // 2, maps.shape[3] // 2
    [gradient] = torch.autograd.grad(maps[:, :, row, column].sum(), images, retain_graph=True)
    touched = (gradient != 0).any(0).any(0)
    rows, columns = touched.any(1).nonzero(), touched.any(0).nonzero()
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


def test_published_costs() -> None:
    """At 448 px, 200 classes; the heads cost 6.4 times as much as the backbone."""
    found = describe_network(PMSI(make_mobilenet_v2(), 200), 448, inputs=1)
    assert (found.backbone_parameters, found.head_parameters) == (2_223_872, 8_303_200)
    assert round(found.backbone_macs / 1e9, 2) == 1.20
    assert found.head_macs / 1e9 == pytest.approx(7.72, abs=0.006)
    assert [(stage.channels, stage.height, stage.width) for stage in found.stages] == [
        (32, 224, 224),
        (24, 112, 112),
        (32, 56, 56),
        (96, 28, 28),
        (1280, 14, 14),
    ]
    assert sum(stage.parameters for stage in found.stages) == found.backbone_parameters
    assert sum(stage.macs for stage in found.stages) == found.backbone_macs
    assert found.stages[0].macs == 3 * 32 * 9 * 224 * 224
    assert [stage.field for stage in found.stages] == [3, 19, 59, 267, 491]
    assert [(stage.recursions, stage.grid) for stage in found.stages[2:]] == [(3, 8), (1, 2), (0, 1)]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("resnet18", [11, 43, 99, 211, 435]),
        ("resnet34", [11, 59, 179, 547, 899]),
        ("resnet50", [11, 35, 91, 267, 427]),
    ],
)
def test_fields_of_resnets(name: str, fields: list[int]) -> None:
    found = describe_network(Baseline(make_backbone(name), 2), 64, inputs=1)
    assert [stage.field for stage in found.stages] == fields


@pytest.mark.parametrize(("name", "count"), [("mobilenet_v2", 3), ("resnet18", 3), ("tiny", 5)])
def test_fields_are_where_gradients_are(name: str, count: int) -> None:
    backbone = (make_tiny() if name == "tiny" else make_backbone(name)).double().eval()
    images = torch.randn(2, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    found = describe_network(Baseline(backbone.float(), 2), 160, inputs=1)
    for maps, stage in list(zip(backbone.double()(images, 5), found.stages, strict=True))[:count]:
        assert find_support(maps, images) == (stage.field, stage.field)


@pytest.mark.parametrize(
    ("layers", "fields"),
    [
        ([make_kernel(3), make_kernel(3), make_kernel(1)], [3, 5, 5]),
        ([make_kernel(3, stride=2), make_kernel(3), make_kernel(3)], [3, 7, 11]),
        ([make_kernel(3, dilation=2), nn.MaxPool2d(2), make_kernel(3)], [5, 6, 10]),
        ([nn.AvgPool2d(2), nn.AvgPool2d(3, 1, 1)], [2, 6]),
        ([make_kernel(3), nn.AdaptiveAvgPool2d(1)], [3, float("inf")]),
    ],
)
def test_fields_by_hand(layers: list[nn.Module], fields: list[float]) -> None:
    assert [stage.field for stage in describe_network(make_chain(*layers), 32, inputs=1).stages] == fields


def test_field_of_branches_is_the_widest() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.narrow = make_kernel(5), make_kernel(1)

        def forward(self, x: Tensor) -> Tensor:
            added: Tensor = self.wide(x) + self.narrow(x) + x
            return added

    assert [stage.field for stage in describe_network(make_chain(Branches()), 32, inputs=1).stages] == [5]


def test_effective_fields_by_hand() -> None:
    """Of a kernel that holds 96 % of its squared mass in the middle, one that holds 94 %, and a flat one."""
    for share, side in ((0.96, 1), (0.94, 3)):
        around = ((1 - share) / 8) ** 0.5
        kernel = make_kernel(3, [around] * 4 + [share**0.5] + [around] * 4)
        assert [stage.effective_field for stage in describe_network(make_chain(kernel), 33, inputs=1).stages] == [side]
    chain = make_chain(make_kernel(3, stride=2), make_kernel(5), nn.MaxPool2d(1))
    assert [stage.effective_field for stage in describe_network(chain, 64, inputs=1).stages] == [3, 11, 11]


def test_effective_field_is_within_the_field() -> None:
    found = describe_network(Baseline(make_mobilenet_v2(), 2), 224, inputs=2)
    sides = [stage.effective_field for stage in found.stages]
    assert sides == sorted(sides)
    assert all(1 <= side <= stage.field for side, stage in zip(sides, found.stages, strict=True))


def test_network_is_left_as_it_is() -> None:
    network = PMSI(make_tiny(), 3, feature_width=16, hidden_width=8)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    before = torch.get_rng_state()
    first, second = (describe_network(network, 64, seed=seed) for seed in (0, 0))
    assert first == second
    assert network.training
    assert all(p.requires_grad and p.grad is None and p.device.type == "cpu" for p in network.parameters())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before)


def test_matrix_products_outside_layers_count() -> None:
    """CNL's attention on four responses, and HBP's projections."""
    plain, cnl = (describe_network(make(make_tiny(), 3), 64, inputs=1) for make in (Baseline, CNL))
    assert plain.head_macs == 12 * 3
    assert cnl.backbone_macs == plain.backbone_macs
    asked, planes, places = 2 * 2, 6, [(8, 64), (8, 64), (10, 16), (10, 16)]
    convolutions = 12 * planes * asked + sum(2 * c * planes * p + planes * 12 * asked for c, p in places)
    attention = sum(2 * asked * p * planes for _, p in places)
    assert cnl.head_macs == 12 * 3 + convolutions + attention
    hbp = describe_network(HBP(make_tiny(), 3, width=5), 64, inputs=1)
    assert hbp.head_macs == 3 * 12 * 5 * asked + 3 * 5 * 3


def test_timm() -> None:
    pytest.importorskip("timm")
    found = describe_network(Baseline(make_backbone("timm:test_resnet"), 2), 64, inputs=1)
    assert sum(stage.parameters for stage in found.stages) == found.backbone_parameters
    assert sum(stage.macs for stage in found.stages) == found.backbone_macs


def test_rule() -> None:
    """A patch must be smaller than the field, not as large."""
    assert [least_recursions(448, field) for field in (449, 448, 57, 56, 1)] == [0, 1, 3, 4, 9]
    assert [least_grid(448, field) for field in (449, 448, 150, 149, 1)] == [1, 2, 3, 4, 449]
    assert least_recursions(448, float("inf")) == 0


def test_print() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    print_description(describe_network(PMSI(make_mobilenet_v2(), 200), 448, inputs=1), console)
    text = console.export_text()
    assert "..." not in text
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    [row] = [line.split() for line in text.splitlines() if line.split()[:1] == ["3"]]
    assert row[:8] == ["3", "32", "@", "56x56", "40", "150", "59", "3"]
    assert "heads 8,303,200 parameters, 7.73 GMAC" in text
    assert "The heads cost 6.4 times as much as the backbone" in text


@pytest.mark.parametrize(("size", "inputs"), [(0, 1), (64, 0)])
def test_bad_input(size: int, inputs: int) -> None:
    with pytest.raises(ValueError, match=f"size and inputs must be 1 or more, got {size} and {inputs}"):
        describe_network(Baseline(make_tiny(), 2), size, inputs=inputs)


def test_no_gradient() -> None:
    with pytest.raises(ValueError, match="no gradient of a stage's central place reaches the image"):
        describe_network(make_chain(make_kernel(1, [0.0])), 8)
