"""Labels counted from plans, and the loss that takes them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mosaicaug import (
    Compose,
    CutMix,
    MixUp,
    OneOf,
    Plan,
    RecursiveMosaic,
    SnapMix,
    Targets,
    class_activation_map,
    cross_entropy,
    mix_labels,
)
from mosaicaug import targets as targets_module
from tests.helpers.oracle import count_overlay, seeded, weigh_snapmix


def place_boxes(size: tuple[int, int], partners: list[int], to_box: list[int], from_box: list[int]) -> Plan:
    """One pair of boxes for every image."""
    return dataclasses.replace(
        Plan.identity(len(partners), size),
        overlay=torch.tensor(partners).int(),
        to_box=torch.tensor([to_box] * len(partners)).int(),
        from_box=torch.tensor([from_box] * len(partners)).int(),
    )


def expect_close(got: Tensor, want: list[float], bound: float = 2**-23) -> None:
    assert got.dtype == torch.float32
    assert got.shape == (len(want),)
    assert not got.isnan().any()
    assert ((got.double().cpu() - torch.tensor(want, dtype=torch.float64)).abs() <= bound).all()


@pytest.mark.parametrize("aug", [CutMix(), CutMix(0.2, per="batch"), CutMix(p=0.5), MixUp(), MixUp(0.2, p=0.5)])
@pytest.mark.parametrize("size", [(16, 16), (13, 29)])
def test_weights_are_pixel_shares(aug: CutMix | MixUp, size: tuple[int, int], device: torch.device) -> None:
    """Within one step of float32 at 1 of the share that the oracle counts."""
    labels = torch.arange(7, device=device)
    _, targets = aug(torch.rand(7, 3, *size, device=device), labels)
    plan = aug.last_plan
    assert isinstance(targets, Targets)
    assert plan is not None
    shares = count_overlay(plan.to_dict())
    expect_close(targets.weight_b, shares)
    expect_close(targets.weight_a, [1 - share for share in shares])
    assert torch.equal(targets.labels_a, labels)
    assert targets.labels_b.tolist() == plan.overlay.tolist()
    assert {field.device for field in targets} == {labels.device}


def test_a_drawn_weight_is_kept_on_demand() -> None:
    """One seed, one box; only the label weight is not cut at the border."""
    labels = torch.arange(500)
    counted, drawn = CutMix(), CutMix(true_area=False)
    plans = [aug.sample((500, 3, 64, 64), generator=seeded(1)) for aug in (counted, drawn)]
    assert torch.equal(plans[0].to_box, plans[1].to_box)
    assert plans[0].drawn_share is None
    share = plans[1].drawn_share
    assert share is not None
    area = torch.tensor(count_overlay(plans[1].to_dict()))
    inside = ((plans[1].to_box[:, :2] > 0) & (plans[1].to_box[:, 2:] < 64)).all(1)
    # A cut is int(64 * sqrt(share)) px, and an odd one loses one more: up to 2 px on each side.
    assert ((64 * share.sqrt() - 64 * area.sqrt())[inside] < 2).all()
    assert (area <= share).all()
    assert (area < share - 0.1)[~inside].any()
    targets = drawn.targets(plans[1], labels)
    assert isinstance(targets, Targets)
    expect_close(targets.weight_b, share.double().tolist())
    expect_close(targets.weight_a, (1 - share.double()).tolist())


def test_a_drawn_weight_of_an_untouched_image_is_0() -> None:
    plan = CutMix(p=0.5, true_area=False).sample((200, 3, 4096, 4096), generator=seeded(2))
    share, touched = plan.drawn_share, (plan.to_box[:, 2:] > 0).any(1)
    assert share is not None
    assert torch.equal(share > 0, touched)


@pytest.mark.parametrize("aug", [CutMix(num_classes=5), MixUp(num_classes=5), SnapMix(num_classes=5)])
def test_num_classes_gives_soft_labels(aug: CutMix | MixUp | SnapMix) -> None:
    labels, maps = torch.tensor([4, 0, 2, 2]), torch.rand(4, 3, 3)
    options = {"maps": maps} if isinstance(aug, SnapMix) else {}
    _, soft = aug(torch.rand(4, 3, 16, 16), labels, **options)
    assert (soft.dtype, soft.shape) == (torch.float32, (4, 5))
    plan = aug.last_plan
    assert plan is not None
    targets = mix_labels(plan, labels, maps=options.get("maps"))
    assert isinstance(targets, Targets)
    want = torch.zeros(4, 5)
    for row in range(4):
        want[row, targets.labels_a[row]] += targets.weight_a[row]
        want[row, targets.labels_b[row]] += targets.weight_b[row]
    assert torch.equal(soft, want)
    assert torch.equal(targets.to_soft(5), want)


@pytest.mark.parametrize("aug", [CutMix(), MixUp(), CutMix(num_classes=6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_soft_labels_stay_soft(aug: CutMix | MixUp, dtype: torch.dtype) -> None:
    labels = torch.rand(5, 6, generator=seeded(3)).softmax(1).to(dtype)
    _, soft = aug(torch.rand(5, 3, 16, 16), labels)
    plan = aug.last_plan
    assert plan is not None
    assert (soft.dtype, soft.shape) == (torch.float32, (5, 6))
    shares = torch.tensor(count_overlay(plan.to_dict()), dtype=torch.float64)[:, None]
    want = (1 - shares) * labels.double() + shares * labels.double()[plan.overlay.long()]
    assert (soft.double() - want).abs().max() < 2**-22
    assert (soft.sum(1) - 1).abs().max() < 1e-2 if dtype == torch.float16 else (soft.sum(1) - 1).abs().max() < 1e-6


def test_labels_of_every_integer_dtype() -> None:
    plan = CutMix().sample((4, 3, 16, 16), generator=seeded(4))
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        targets = mix_labels(plan, torch.tensor([3, 1, 0, 2], dtype=dtype))
        assert isinstance(targets, Targets)
        assert targets.labels_a.dtype == targets.labels_b.dtype == dtype
        assert targets.to_soft(4).shape == (4, 4)


@pytest.mark.parametrize("maps_size", [(7, 7), (3, 5), (16, 21), (40, 30)])
@pytest.mark.parametrize("soft", [False, True])
def test_snapmix_weights_follow_the_published_rules(
    maps_size: tuple[int, int], device: torch.device, *, soft: bool
) -> None:
    """Same-label pairs are among them. Maps are stretched in float32, so a share is off by 1e-5 at most."""
    hard = torch.tensor([0, 0, 1, 1, 1, 0, 2, 2])
    labels = F.one_hot(hard, 3).float() if soft else hard
    maps = torch.rand(8, *maps_size, generator=seeded(5)) - 0.3
    for seed in range(4):
        plan = SnapMix(1.0, p=0.8).sample((8, 3, 16, 21), generator=seeded(seed))
        weights = weigh_snapmix(plan.to_dict(), labels.tolist(), maps.tolist())
        got = mix_labels(plan, labels.to(device), maps=maps.to(device))
        if isinstance(got, Targets):
            expect_close(got.weight_a, weights[0], 1e-5)
            expect_close(got.weight_b, weights[1], 1e-5)
        else:
            rows = torch.tensor(weights)[:, :, None] * torch.stack([labels, labels[plan.overlay.long()]])
            assert (got.cpu() - rows.sum(0)).abs().max() < 2e-5


def test_snapmix_weights_of_one_label_are_both_the_sum() -> None:
    plan = place_boxes((8, 8), [1, 0], to_box=[0, 0, 4, 8], from_box=[0, 0, 8, 4])
    maps = torch.zeros(2, 8, 8)
    maps[0, :4], maps[0, 4:] = 3.0, 1.0  # least value 1 goes: all of image 0's mass is in the upper half
    maps[1, :, :4] = 5.0  # and all of image 1's in the left half
    targets = mix_labels(plan, torch.tensor([9, 9]), maps=maps)
    assert isinstance(targets, Targets)
    # Image 0 loses all of its mass and gets all of image 1's; image 1 loses one half and gets one half.
    expect_close(targets.weight_a, [0 + 1, 0.5 + 0.5], 1e-6)
    expect_close(targets.weight_b, [1.0, 1.0], 1e-6)
    other = mix_labels(plan, torch.tensor([8, 9]), maps=maps)
    assert isinstance(other, Targets)
    expect_close(other.weight_a, [0, 0.5], 1e-6)
    expect_close(other.weight_b, [1, 0.5], 1e-6)


def test_snapmix_with_a_full_box_gives_all_to_the_partner() -> None:
    plan = place_boxes((8, 6), [1, 0], to_box=[0, 0, 8, 6], from_box=[0, 0, 8, 6])
    targets = mix_labels(plan, torch.tensor([0, 1]), maps=torch.rand(2, 4, 4))
    assert isinstance(targets, Targets)
    expect_close(targets.weight_a, [0, 0], 1e-6)
    expect_close(targets.weight_b, [1, 1], 1e-6)


@pytest.mark.parametrize("value", [0.0, 0.3, 1 / 3, -2.7, 1e6 / 3, math.nan])
@pytest.mark.parametrize("labels", [[0, 1, 2], [5, 5, 5]])
def test_snapmix_without_mass_falls_back_to_areas(value: float, labels: list[int]) -> None:
    """A constant map, whatever its value, or one that holds NaN."""
    plan = place_boxes((20, 31), [1, 0, 2], to_box=[2, 3, 12, 13], from_box=[0, 0, 7, 9])
    share = 100 / (20 * 31)
    maps = torch.full((3, 7, 7), value)
    targets = mix_labels(plan, torch.tensor(labels), maps=maps)
    assert isinstance(targets, Targets)
    expect_close(targets.weight_a, [1 - share] * 3, 1e-6)
    expect_close(targets.weight_b, [share] * 3, 1e-6)
    maps[0] = torch.rand(7, 7)  # one of two maps is enough for one of two weights, but not for a sum
    weights = weigh_snapmix(plan.to_dict(), labels, maps.tolist())
    targets = mix_labels(plan, torch.tensor(labels), maps=maps)
    assert isinstance(targets, Targets)
    expect_close(targets.weight_a, weights[0], 1e-5)
    expect_close(targets.weight_b, weights[1], 1e-5)


def test_a_map_of_one_value_at_every_pixel_has_no_mass() -> None:
    """Six columns on one column of pixels: whatever the map holds, all pixels see the middle between two of them."""
    plan = place_boxes((3, 1), [1, 0], to_box=[0, 0, 1, 1], from_box=[0, 0, 2, 1])
    for seed in range(10):  # sums of equal numbers are rounded by luck
        maps = torch.rand(2, 1, 6, generator=seeded(seed), dtype=torch.float64)
        targets = mix_labels(plan, torch.tensor([0, 1]), maps=maps)
        assert isinstance(targets, Targets)
        expect_close(targets.weight_a, [2 / 3] * 2, 1e-6)
        expect_close(targets.weight_b, [1 / 3] * 2, 1e-6)


def test_a_map_is_constant_up_to_rounding_of_its_values() -> None:
    """Large and small values; rounding noise is a few units in the last place."""
    box = torch.tensor([[0, 0, 4, 4]] * 2)
    for value in (1e6, 1.0, 1e-6):
        maps = torch.full((2, 4, 4), value, dtype=torch.float64)
        maps[0, 1, 1] += 4 * math.ulp(value)
        maps[1, 1, 1] += 1e4 * math.ulp(value)
        assert targets_module._mass(maps, box, (4, 4)).isnan().tolist() == [True, False]


def test_another_default_device_changes_no_weight() -> None:
    plan, maps = SnapMix(p=1.0).sample((3, 1, 11, 13), generator=seeded(8)), torch.rand(3, 5, 4, generator=seeded(9))
    with torch.device("meta"):
        found = mix_labels(plan, torch.arange(3, device="cpu"), maps=maps)
    targets_module._kept_resizing_weights.cache_clear()
    wanted = mix_labels(plan, torch.arange(3), maps=maps)
    assert isinstance(found, Targets)
    assert isinstance(wanted, Targets)
    assert torch.equal(found.weight_a, wanted.weight_a)
    assert torch.equal(found.weight_b, wanted.weight_b)


def test_every_device_has_a_mode_without_autocast() -> None:
    for device in ("cpu", "meta"):
        with targets_module._full_precision(torch.device(device)):
            assert not torch.is_autocast_enabled("cpu")


def test_snapmix_with_an_empty_box_changes_nothing() -> None:
    aug = SnapMix(1.0)
    images, maps = torch.rand(400, 1, 4, 4), torch.rand(400, 2, 2)
    mixed, targets = aug(images, torch.arange(400), maps=maps)
    plan = aug.last_plan
    assert plan is not None
    sides = torch.stack([box[:, 2:] - box[:, :2] for box in (plan.to_box, plan.from_box)])
    empty = (sides == 0).any(2)
    assert torch.equal(empty[0], empty[1])  # either box empty: both are
    assert 10 < int(empty[0].sum()) < 390
    assert torch.equal(mixed[empty[0]], images[empty[0]])
    assert (targets.weight_a[empty[0]] == 1).all()
    assert (targets.weight_b[empty[0]] == 0).all()


def test_snapmix_asks_cam_when_no_maps_are_passed() -> None:
    images, labels = torch.rand(4, 3, 16, 16), torch.arange(4)
    seen: list[tuple[Tensor, Tensor]] = []

    def look(images: Tensor, labels: Tensor) -> Tensor:
        seen.append((images, labels))
        return images.mean(1)

    aug = SnapMix(cam=look)
    _, targets = aug(images, labels)
    assert seen[0][0] is images
    assert seen[0][1] is labels
    plan = aug.last_plan
    assert plan is not None
    want = mix_labels(plan, labels, maps=images.mean(1))
    assert all(torch.equal(one, two) for one, two in zip(targets, want, strict=True))
    aug(images, labels, maps=torch.rand(4, 2, 2))
    assert len(seen) == 1


def test_targets_of_compose_and_one_of_are_the_mixing_members() -> None:
    images, labels = torch.rand(40, 1, 16, 16), torch.arange(40)
    for aug in (Compose([RecursiveMosaic(1), CutMix()]), OneOf([CutMix(), MixUp(), RecursiveMosaic(1)])):
        _, targets = aug(images, labels)
        plan = aug.last_plan
        assert plan is not None
        expect_close(targets.weight_b, count_overlay(plan.to_dict()))
        assert targets.labels_b.tolist() == plan.overlay.tolist()


def test_class_activation_map_is_the_classifier_at_every_place() -> None:
    features = torch.randn(3, 8, 5, 4, generator=seeded(6), requires_grad=True)
    weight, bias = torch.randn(6, 8, generator=seeded(7)), torch.randn(6, generator=seeded(8))
    labels = torch.tensor([5, 0, 5])
    maps = class_activation_map(features, weight, bias, labels)
    assert maps.shape == (3, 5, 4)
    assert not maps.requires_grad
    scores = F.conv2d(features.relu(), weight[:, :, None, None], bias)
    for image in range(3):
        torch.testing.assert_close(maps[image], scores[image, labels[image]].detach(), rtol=1e-5, atol=1e-5)
    flat = class_activation_map(features, weight, None, labels)
    torch.testing.assert_close(flat + bias[labels][:, None, None], maps, rtol=1e-5, atol=1e-5)


def test_cross_entropy_weighs_both_labels_and_divides_by_the_batch_alone() -> None:
    logits = torch.randn(4, 6, generator=seeded(9), requires_grad=True)
    a, b = torch.tensor([0, 1, 2, 3]), torch.tensor([5, 1, 0, 3])
    weights = (
        torch.tensor([0.25, 1.5, 1.0, 0.0]),
        torch.tensor([0.75, 1.5, 0.25, 0.0]),
    )  # as SnapMix's: sums of any size
    want = sum(
        weights[0][i] * F.cross_entropy(logits[i], a[i]) + weights[1][i] * F.cross_entropy(logits[i], b[i])
        for i in range(4)
    )
    loss = cross_entropy(logits, Targets(a, b, *weights))
    torch.testing.assert_close(loss, torch.as_tensor(want) / 4)
    [gradient] = torch.autograd.grad(loss, logits)
    assert (gradient.abs().sum(1) > 0).tolist() == [True, True, True, False]


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"reduction": "sum"}, {"reduction": "none"}])
def test_cross_entropy_of_hard_labels_and_soft_labels_is_torchs(options: dict[str, float | str]) -> None:
    logits, labels = torch.randn(4, 6, generator=seeded(10)), torch.tensor([0, 5, 2, 3])
    want = F.cross_entropy(logits, labels, **options)  # type: ignore[arg-type]
    one, zero = torch.ones(4), torch.zeros(4)
    soft = F.one_hot(labels, 6).float()
    for targets in (labels, soft, Targets(labels, labels, one, zero), Targets(labels, labels, one / 2, one / 2)):
        torch.testing.assert_close(cross_entropy(logits, targets, **options), want)


def test_reductions_that_do_not_exist() -> None:
    targets = Targets(torch.arange(4), torch.arange(4), torch.ones(4), torch.zeros(4))
    with pytest.raises(ValueError, match=r"cross_entropy.*reduction.*median"):
        cross_entropy(torch.rand(4, 4), targets, reduction="median")


def test_labels_and_targets_may_be_lists_arrays_and_one_hot() -> None:
    plan, labels, logits = CutMix().sample((4, 3, 8, 8)), torch.tensor([2, 0, 1, 2]), torch.randn(4, 3)
    hot = F.one_hot(labels, 3)
    pairs = zip(mix_labels(plan, labels.tolist()), mix_labels(plan, labels), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert torch.equal(mix_labels(plan, hot), mix_labels(plan, hot.float()))  # type: ignore[arg-type]
    want = F.cross_entropy(logits, labels)
    targets: Any
    for targets in (labels.tolist(), labels.numpy(), hot, hot.bool(), hot.numpy(), hot.float().tolist()):
        assert torch.allclose(cross_entropy(logits, targets), want)
    features, weight = torch.rand(4, 2, 3, 3), torch.rand(3, 2)
    want = class_activation_map(features, weight, None, labels)
    for targets in (labels.tolist(), hot):
        assert torch.allclose(class_activation_map(features, weight, None, targets), want)


def test_what_is_no_tensor_is_refused_in_one_line() -> None:
    plan: Any = CutMix().sample((4, 3, 8, 8))
    lists: Any = [[1.0]]
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: mix_labels(plan.to_dict(), torch.arange(4)), "mix_labels: plan must be a Plan, got dict"),
        (lambda: mix_labels(plan, torch.arange(4), num_classes=lists), "mix_labels: num_classes must be an integer"),
        (lambda: mix_labels(plan, torch.arange(4), maps=lists), "mix_labels: maps must be a tensor, got list"),
        (lambda: cross_entropy(lists, [0]), "cross_entropy: logits must be a tensor, got list"),
        (
            lambda: cross_entropy(torch.zeros(1, 2), ["a"]),
            "cross_entropy: targets must be a tensor, an array",
        ),
    ]
    for call, message in calls:
        with pytest.raises(TypeError, match=rf"^{message}"):
            call()


def test_errors_name_the_function_and_the_argument() -> None:
    features, weight, labels = torch.rand(2, 3, 4, 4), torch.rand(5, 3), torch.tensor([0, 4])
    wrong: list[tuple[Callable[..., Any], list[Any], str]] = [
        (class_activation_map, [[1.0], weight, None, labels], "class_activation_map: features must be a tensor"),
        (class_activation_map, [features, [1.0], None, labels], "class_activation_map: weight must be a tensor"),
        (class_activation_map, [features, weight, None, labels + 1], "class_activation_map: num_classes=5"),
        (class_activation_map, [features, weight, None, "ab"], "class_activation_map: labels must be a tensor"),
        (cross_entropy, [[1.0], labels], "cross_entropy: logits must be a tensor"),
        (cross_entropy, [torch.rand(2, 5), "ab"], "cross_entropy: targets must be a tensor"),
        (mix_labels, [Plan.identity(2, (4, 4)), "ab"], "mix_labels: labels must be a tensor"),
    ]
    for function, arguments, message in wrong:
        with pytest.raises((TypeError, ValueError), match=f"^{message}"):
            function(*arguments)
    with pytest.raises(TypeError, match=r"^mix_labels: maps must be a tensor"):
        mix_labels(Plan.identity(2, (4, 4)), labels, maps=[1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^mix_labels: num_classes must be at least 1"):
        mix_labels(Plan.identity(2, (4, 4)), labels, num_classes=0)
