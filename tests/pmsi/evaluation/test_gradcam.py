"""Grad-CAM against one that is known by hand, and that it leaves no trace; overlays by their pixels."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mosaicaug import class_activation_map
from pmsi.evaluation.gradcam import grad_cam
from pmsi.models.base import Logits
from pmsi.models.pmsi import PMSI
from pmsi.report.figures import overlay_heatmap
from tests.helpers.small_run import make_backbone

SHALLOW = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 1.0]])  # [K, C], weights of two classes
DEEP = torch.tensor([[-1.0, 0.5, 3.0], [2.0, -1.0, 0.0]])


class TwoMaps(nn.Module):
    """The images themselves, and their 2 x 2 means."""

    def forward(self, images: Tensor, count: int = 2) -> list[Tensor]:
        return [images, nn.functional.avg_pool2d(images, 2)][-count:]


class Linear(nn.Module):
    """Logits are linear in the means of the maps: then Grad-CAM is the class activation map (CAM)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = TwoMaps()
        self.shallow, self.deep = nn.Parameter(SHALLOW.clone()), nn.Parameter(DEEP.clone())

    def forward(self, images: Tensor) -> Logits:
        first, second = (one.mean((2, 3)) for one in self.backbone(images, 2))
        return Logits((first @ self.shallow.T, second @ self.deep.T), 2 * second @ self.deep.T)


def make_pmsi(**options: Any) -> PMSI:
    return PMSI(make_backbone(), 4, feature_width=16, hidden_width=8, **options)


def scale(heat: Tensor) -> Tensor:
    return heat.relu() / heat.relu().amax((1, 2), keepdim=True)


def weigh(weight: Tensor, maps: Tensor) -> Tensor:
    """``weight`` [B, C] over the channels of ``maps``."""
    return scale(torch.einsum("bc,bchw->bhw", weight, maps))


@pytest.mark.parametrize("classes", [[0, 1, 1], [1, 0, 1]])
def test_of_a_linear_network_it_is_the_class_activation_map(classes: list[int]) -> None:
    images, chosen = torch.randn(3, 3, 6, 8), torch.tensor(classes)
    shallow, deep = TwoMaps()(images)
    # Sums of a few terms in float32: within 1e-5.
    first, second = grad_cam(Linear(), images, output=0, classes=chosen)
    assert torch.allclose(first, weigh(SHALLOW[chosen], shallow), atol=1e-5)
    assert second.eq(0).all()  # the shallow logit does not depend on the deep map
    first, second = grad_cam(Linear(), images, output=-1, classes=chosen)
    assert torch.allclose(second, weigh(DEEP[chosen], deep), atol=1e-5)
    assert torch.allclose(first, weigh(DEEP[chosen], shallow), atol=1e-5)  # by way of the deep map
    for output, share in (("concat", 2), ("mix", 3)):
        first, second = grad_cam(Linear(), images, output=output, classes=chosen)  # type: ignore[arg-type]
        assert torch.allclose(second, weigh(DEEP[chosen], deep), atol=1e-5)
        direct = SHALLOW if output == "mix" else 0 * SHALLOW
        assert torch.allclose(first, weigh((direct + share * DEEP)[chosen], shallow), atol=1e-5)


class Squares(Linear):
    """Logits are linear in the mean squares of the deep map, so gradients differ from place to place."""

    def forward(self, images: Tensor) -> Logits:
        logits = self.backbone(images, 1)[0].square().mean((2, 3)) @ self.deep.T
        return Logits((logits,), logits)


def test_a_channel_counts_by_its_mean_gradient() -> None:
    images, chosen = torch.randn(3, 3, 6, 8), torch.tensor([0, 1, 0])
    deep = TwoMaps()(images)[1]
    # d logit / d A = 2 w A / hw, whose mean is in proportion to w mean(A).
    [found] = grad_cam(Squares(), images, output=0, classes=chosen)
    assert torch.allclose(found, weigh(DEEP[chosen] * deep.mean((2, 3)), deep), atol=1e-5)


def test_it_agrees_with_snapmixs_maps() -> None:
    images, chosen = torch.rand(3, 3, 6, 8), torch.tensor([1, 0, 1])  # those are made from non-negative maps
    expected = class_activation_map(TwoMaps()(images)[1], DEEP, torch.zeros(2), chosen)
    assert torch.allclose(grad_cam(Linear(), images, output=1, classes=chosen)[1], scale(expected), atol=1e-5)


def test_a_map_worked_by_hand() -> None:
    # Channels count 1 and -2: cells of 3, 1 - 2 * 1 < 0, 4 - 2 * 0.5 = 3, and 6.
    images = torch.zeros(1, 3, 2, 2)
    images[0, 0] = torch.tensor([[3.0, 1.0], [4.0, 6.0]])
    images[0, 1] = torch.tensor([[0.0, 1.0], [0.5, 0.0]])
    maps = grad_cam(Linear(), images, output=0, classes=torch.tensor([0]))
    assert torch.allclose(maps[0], torch.tensor([[[0.5, 0.0], [0.5, 1.0]]]))


@pytest.mark.parametrize("output", [0, 1, 2, -1, "concat", "mix"])
def test_the_predicted_class_is_that_of_the_chosen_output(output: Any) -> None:
    network, images = make_pmsi().eval(), torch.randn(5, 3, 32, 32)
    logits: Logits = network(images)
    mine = logits.stages[output] if isinstance(output, int) else getattr(logits, output)
    for found, expected in zip(
        grad_cam(network, images, output=output),
        grad_cam(network, images, output=output, classes=mine.argmax(1)),
        strict=True,
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("stages", [1, 3])
def test_every_stage_has_a_map_from_0_to_1(stages: int) -> None:
    maps = grad_cam(make_pmsi(stages=stages), torch.randn(4, 3, 64, 96))
    assert [tuple(one.shape) for one in maps] == [(4, 8, 12), (4, 4, 6), (4, 2, 3)][-stages:]
    for one in maps:
        assert one.min() >= 0
        assert all(peak in (0, 1) for peak in one.amax((1, 2)).tolist())
        assert not one.requires_grad


def test_images_of_a_batch_do_not_touch() -> None:
    network, images = make_pmsi(), torch.randn(4, 3, 32, 32)
    together = grad_cam(network, images)
    for row in range(4):
        for found, one in zip(together, grad_cam(network, images[row : row + 1]), strict=True):
            assert torch.allclose(found[row], one[0], atol=1e-4)  # convolutions of another batch size


def describe(network: nn.Module) -> tuple[Any, ...]:
    return (
        {name: value.clone() for name, value in network.state_dict().items()},
        [module.training for module in network.modules()],
        [parameter.grad for parameter in network.parameters()],
        [parameter.requires_grad for parameter in network.parameters()],
        [(len(module._forward_hooks), len(module._backward_hooks)) for module in network.modules()],
    )


def assert_untouched(network: nn.Module, before: tuple[Any, ...]) -> None:
    after = describe(network)
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())
    assert after[1:2] + after[3:] == before[1:2] + before[3:]
    assert all(one is other for one, other in zip(after[2], before[2], strict=True))


def test_no_trace_is_left() -> None:
    network, images = make_pmsi().train(), torch.randn(3, 3, 32, 32)
    network.smooth[1].eval()  # modes of their own are kept too
    next(network.parameters()).requires_grad = False
    network(images).mix.sum().backward()
    before, given = describe(network), copy.deepcopy(images)
    gradients = [one.clone() for one in before[2] if one is not None]
    grad_cam(network, images)
    assert_untouched(network, before)
    kept = [one for one in before[2] if one is not None]
    assert all(torch.equal(one, other) for one, other in zip(kept, gradients, strict=True))
    assert torch.equal(images, given)
    assert not images.requires_grad
    with pytest.raises(ValueError, match="output must be"):
        grad_cam(network, images, output=3)
    assert_untouched(network, before)


def test_it_works_where_gradients_are_off() -> None:
    network, images = make_pmsi(), torch.randn(2, 3, 32, 32)
    expected = grad_cam(network, images)
    for parameter in network.parameters():
        parameter.requires_grad = False
    with torch.no_grad():
        found = [grad_cam(network, images)]
    with torch.inference_mode():
        found.append(grad_cam(network, images.clone()))
        assert torch.is_inference_mode_enabled()
    for maps in found:
        assert all(torch.equal(one, other) for one, other in zip(maps, expected, strict=True))


@pytest.mark.parametrize("output", [3, -4, "Mix", None])
def test_other_outputs_are_refused(output: Any) -> None:
    with pytest.raises(ValueError, match=r"output must be 'concat', 'mix' or one of 3 stages, got"):
        grad_cam(make_pmsi(), torch.randn(1, 3, 32, 32), output=output)


@pytest.mark.parametrize("classes", [[0], [0, 4], [-1, 0]])
def test_classes_that_do_not_fit_are_refused(classes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"classes must be 2 numbers in 0..3, got \[.*\d\]"):
        grad_cam(make_pmsi(), torch.randn(2, 3, 32, 32), classes=torch.tensor(classes))


def test_overlay_by_hand() -> None:
    images = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    maps = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])
    found = overlay_heatmap(images, maps, opacity=0.25, colormap="gray")
    assert found.dtype == torch.uint8
    assert found[0].eq(75).all()  # 0.75 * 100
    assert found[1].eq(139).all()  # 0.75 * 100 + 0.25 * 255 = 138.75
    assert torch.equal(overlay_heatmap(images, maps, opacity=0), images)
    red = overlay_heatmap(images, maps, opacity=1, colormap="bwr")  # blue, white, red: 1 is red
    assert red[1, :, 0, 0].tolist() == [255, 0, 0]


def test_overlay_interpolates_in_place() -> None:
    maps = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    found = overlay_heatmap(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), maps, opacity=1, colormap="gray")[0, 0]
    # Bilinear from 2 to 4: shares of 0, 1/4, 3/4, 1 across, and 1, 3/4, 1/4, 0 down; matplotlib has 256 greys.
    expected = 255 * torch.tensor([1, 0.75, 0.25, 0])[:, None] * torch.tensor([0, 0.25, 0.75, 1])
    assert (found.float() - expected).abs().max() <= 1


def test_overlay_refuses_what_does_not_fit() -> None:
    images, maps = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 2, 2)
    with pytest.raises(TypeError, match=r"images must be uint8, got torch\.float32"):
        overlay_heatmap(images.float(), maps)
    with pytest.raises(ValueError, match=r"got \[2, 3, 4, 4\] and \[1, 2, 2\]"):
        overlay_heatmap(images, maps[:1])
    with pytest.raises(ValueError, match=r"opacity must lie in 0..1, got 2"):
        overlay_heatmap(images, maps, opacity=2)
    with pytest.raises(ValueError, match="no colour map 'rainbows'"):
        overlay_heatmap(images, maps, colormap="rainbows")
