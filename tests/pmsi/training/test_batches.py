"""Mini-batches of an epoch: which images and crops, in which order, and the share of each process."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mosaicaug import apply
from pmsi.recipe import METHODS, Method, Recipe
from pmsi.training.batches import count_batches, draw_balanced, plan_epoch, take_local
from tests.helpers.small_run import RECIPE

LABELS = torch.arange(40) % 3


def stack(recipe: Recipe, count: int, *, seed: int = 0, epoch: int = 0) -> tuple[Tensor, Tensor]:
    iterations = list(plan_epoch(recipe, torch.zeros(count, dtype=torch.int64), seed=seed, epoch=epoch))
    return torch.stack([one.index for one in iterations]), torch.cat([one.window for one in iterations])


def test_every_augmentation_sees_the_same_crops_in_the_same_order() -> None:
    epochs = [stack(replace(RECIPE, augmentation=method), 13, seed=3) for method in METHODS]
    assert all(torch.equal(order, epochs[0][0]) for order, _ in epochs)
    assert all(torch.equal(window, epochs[0][1]) for _, window in epochs)


def test_each_image_comes_once_an_epoch_and_a_last_smaller_batch_is_dropped() -> None:
    order, window = stack(RECIPE, 15)
    assert order.shape == (3, 4)
    assert window.shape == (12, 3)
    assert len(set(order.flatten().tolist())) == 12
    assert set(order.flatten().tolist()) <= set(range(15))


def test_order_and_crops_change_with_epoch_and_seed() -> None:
    epochs = [stack(RECIPE, 40, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    for a in range(4):
        for b in range(a):
            assert not torch.equal(epochs[a][0], epochs[b][0])
            assert not torch.equal(epochs[a][1], epochs[b][1])
    assert torch.equal(stack(RECIPE, 40)[1], epochs[0][1])


def test_windows_lie_inside_and_reach_every_place() -> None:
    """1000 draws of 5 places: each within 5 standard deviations (13) of 200; flips (16) of 500."""
    _, window = stack(RECIPE, 1000)
    for axis in (0, 1):
        places = window[:, axis].bincount()
        assert len(places) == 5
        assert (places - 200).abs().max() < 64
    flips = window[:, 2].bincount()
    assert len(flips) == 2
    assert (flips - 500).abs().max() < 80
    assert len({tuple(row) for row in window.tolist()}) == 50  # y, x and flip are drawn apart


@pytest.mark.parametrize(("until", "mosaics"), [(0.0, 0), (0.25, 3), (0.5, 5), (0.9, 9), (1.0, 10)])
@pytest.mark.parametrize("augmentation", ["rmg", "jigsaw"])
def test_mosaics_end_after_their_share_of_the_run(augmentation: Method, until: float, mosaics: int) -> None:
    """Of two epochs of five mini-batches; the mosaics are those of a run that has them to its end."""
    whole = replace(RECIPE, augmentation=augmentation, epochs=2)
    plans = [
        [
            [str(draw.plan.to_dict()) for draw in one.draws]
            for epoch in range(2)
            for one in plan_epoch(recipe, LABELS[:20], seed=0, epoch=epoch)
        ]
        for recipe in (replace(whole, mosaic_until=until), whole, replace(whole, augmentation="none"))
    ]
    assert len(plans[0]) == 10
    assert plans[0][:mosaics] == plans[1][:mosaics]
    assert plans[0][mosaics:] == plans[2][mosaics:]
    (last,) = plan_epoch(replace(whole, mosaic_until=until), LABELS[:20], seed=0, epoch=1, start=4)
    assert [str(draw.plan.to_dict()) for draw in last.draws] == plans[0][-1]


def test_mixing_goes_on_where_mosaics_end() -> None:
    recipe = replace(RECIPE, augmentation="cutmix", mosaic_until=0.0)
    (one,) = plan_epoch(recipe, LABELS[:4], seed=0, epoch=0)
    assert one.draws[0].plan.has_overlay.any()


def test_too_few_images_for_one_batch() -> None:
    with pytest.raises(ValueError, match="3 training images do not fill a batch of 4; lower --batch-size"):
        next(plan_epoch(RECIPE, torch.zeros(3), seed=0, epoch=0))


def test_balanced_mini_batches_hold_equally_many_images_of_each_class() -> None:
    recipe, labels = replace(RECIPE, batch_size=6, classes_per_batch=3), torch.arange(40) // 8
    batches = list(plan_epoch(recipe, labels, seed=1, epoch=2))
    assert len(batches) == 6
    for batch in batches:
        assert labels[batch.index].bincount(minlength=5).sort().values.tolist() == [0, 0, 2, 2, 2]
        assert len(set(batch.index.tolist())) == 6
    again = list(plan_epoch(recipe, labels, seed=1, epoch=2, start=4))
    assert [one.index.tolist() for one in again] == [one.index.tolist() for one in batches[4:]]


def test_labels_are_those_of_the_images() -> None:
    for batch in plan_epoch(RECIPE, LABELS, seed=0, epoch=0):
        assert torch.equal(batch.labels, LABELS[batch.index])


def test_a_last_smaller_batch_does_not_count() -> None:
    assert [count_batches(RECIPE, images) for images in (4, 7, 8)] == [1, 1, 2]


@pytest.mark.parametrize("augmentation", ["rmg", "jigsaw", "cutmix", "mixup", "snapmix"])
@pytest.mark.parametrize("shares", [2, 4])
def test_shares_make_the_whole_batch(augmentation: Method, shares: int) -> None:
    """Each process's images, from the entries it fetches alone, are its rows of what one process makes."""
    recipe = replace(RECIPE, augmentation=augmentation, batch_size=8, per="sample", cutmix_p=0.7, mix_scope="phase")
    images = torch.randint(0, 256, (40, 3, 36, 36), dtype=torch.uint8)
    whole = next(plan_epoch(recipe, LABELS, seed=3, epoch=0))
    for rank in range(shares):
        rows = slice(rank * 8 // shares, (rank + 1) * 8 // shares)
        share = take_local(whole, rows)
        assert (share.batch, share.rows, share.count) == (whole, rows, 8 // shares)
        assert len(share.index) == len(set(share.index.tolist())) <= 8
        assert torch.equal(share.index[: 8 // shares], whole.index[rows])
        fetched = images[share.index]
        for draw, plan in zip(whole.draws, share.plans, strict=True):
            wanted = apply(images, draw.plan, index=whole.index, window=whole.window)[rows]
            found = apply(fetched, plan, window=share.window)[: 8 // shares]
            assert torch.equal(found, wanted)


def test_a_share_fetches_no_more_than_it_needs() -> None:
    tiles = next(plan_epoch(replace(RECIPE, batch_size=8), LABELS, seed=0, epoch=0))
    assert torch.equal(take_local(tiles, slice(2, 4)).index, tiles.index[2:4])
    mixed = next(plan_epoch(replace(RECIPE, batch_size=8, augmentation="mixup", mixup_p=1.0), LABELS, seed=0, epoch=0))
    assert len(take_local(mixed, slice(2, 4)).index) <= 4


def test_a_whole_share_is_the_iteration_itself() -> None:
    whole = next(plan_epoch(RECIPE, LABELS, seed=0, epoch=0))
    share = take_local(whole, slice(0, 4))
    assert all(draw.plan is plan for draw, plan in zip(whole.draws, share.plans, strict=True))
    assert share.index is whole.index
    assert share.window is whole.window
    assert take_local(whole, slice(None)).count == 4


def test_balanced_batches() -> None:
    labels = torch.tensor([k for k in range(6) for _ in range(5 + k)])
    labels = labels[torch.randperm(len(labels))]
    batches = draw_balanced(labels, 40, classes=4, samples=3)
    assert batches.shape == (40, 12)
    for batch in batches:
        classes = labels[batch].view(4, 3)
        assert (classes == classes[:, :1]).all()  # three of each
        assert len(set(classes[:, 0].tolist())) == 4  # each class once
        assert len(set(batch.tolist())) == 12
    assert set(batches.flatten().tolist()) == set(range(len(labels)))
    assert len({frozenset(labels[batch].tolist()) for batch in batches}) > 5


def test_balanced_batches_use_up_a_class_before_it_starts_again() -> None:
    batches = draw_balanced(torch.arange(16) % 2, 4, classes=2, samples=4)
    for two in batches.chunk(2):
        assert two.flatten().sort().values.tolist() == list(range(16))


def test_balanced_batches_are_a_function_of_the_generator() -> None:
    labels = torch.arange(20) % 6
    first, again, other = (
        draw_balanced(labels, 5, classes=3, samples=2, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert draw_balanced(labels, 0, classes=3, samples=2).shape == (0, 6)


@pytest.mark.parametrize(
    ("classes", "samples", "message"),
    [
        (1, 4, "pairs need 2 classes of 2 images or more, got 1 of 4"),
        (4, 1, "pairs need 2 classes of 2 images or more, got 4 of 1"),
        (5, 2, "a batch needs 5 classes, the data have 4"),
        (4, 4, "a batch needs 4 images of a class, class 7 has 3"),
    ],
)
def test_batches_that_cannot_be(classes: int, samples: int, message: str) -> None:
    labels = torch.tensor([5] * 4 + [6] * 4 + [7] * 3 + [9] * 6)
    with pytest.raises(ValueError, match=message):
        draw_balanced(labels, 1, classes=classes, samples=samples)
