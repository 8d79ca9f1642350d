"""Draws in a DataLoader's workers: all are different, and one seed gives one epoch, forked or spawned."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import tv_tensors

from mosaicaug import CutMix, Jigsaw, MixUp, OneOf
from mosaicaug.torchvision import V2Transform

SIDE = 4
mix = OneOf([CutMix(true_area=False), MixUp()])  # weights as drawn: no two are equal by chance
mix_types = V2Transform(CutMix(num_classes=40))


class Addresses(Dataset[Any]):
    """Forty equal images of 16 px, each pixel its own address: tiles of one pixel show the draw itself."""

    def __init__(self, transform: Callable[[Any], Any] | None = None) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 40

    def __getitem__(self, place: int) -> Any:
        image = tv_tensors.Image(torch.arange(SIDE * SIDE).float().view(1, SIDE, SIDE))
        return (self.transform(image) if self.transform else image), place


def mix_types_of_batch(samples: list[Any]) -> Any:
    with tv_tensors.set_return_type("TVTensor"):
        return mix_types(*default_collate(samples))


def load(
    transform: Callable[[Any], Any] | None = None,
    *,
    seed: int = 0,
    start: str = "fork",
    workers: int = 2,
    epochs: int = 1,
    **options: Any,
) -> list[Any]:
    """All batches of all epochs."""
    torch.manual_seed(seed)
    loader = DataLoader(Addresses(transform), 4, num_workers=workers, multiprocessing_context=start, **options)
    return [batch for _ in range(epochs) for batch in loader]


def same(one: list[Any], two: list[Any]) -> bool:
    return all(torch.equal(*pair) for pair in zip(tree_leaves(one), tree_leaves(two), strict=True))


@pytest.mark.parametrize("persistent", [False, True])
def test_no_two_samples_are_drawn_alike(persistent: bool) -> None:
    """80 of the 16! arrangements, from two workers in two epochs."""
    batches = load(V2Transform(Jigsaw(4)), epochs=2, persistent_workers=persistent)
    arrangements = torch.cat([images for images, _ in batches]).flatten(1)
    assert torch.equal(arrangements.sort(1).values, torch.arange(16.0).expand(80, 16))
    assert len(set(map(tuple, arrangements.tolist()))) == 80


@pytest.mark.parametrize("persistent", [False, True])
def test_no_two_batches_are_mixed_alike(persistent: bool) -> None:
    batches = load(collate_fn=mix.collate, epochs=2, persistent_workers=persistent)
    weights = [tuple(targets.weight_b.tolist()) for _, targets in batches]
    assert len(set(weights)) == len(weights) == 20


@pytest.mark.parametrize("options", [{"transform": V2Transform(Jigsaw(4))}, {"collate_fn": mix.collate}])
def test_one_seed_is_one_run(options: dict[str, Any]) -> None:
    run = load(**options, epochs=2)
    assert same(run, load(**options, epochs=2))
    assert not same(run[:10], run[10:])
    assert not same(run, load(**options, epochs=2, seed=1))


def test_samples_are_collated_and_augmented() -> None:
    pairs = [Addresses()[place] for place in range(4)]
    for samples, augmentation in (
        (pairs, mix),
        (pairs, Jigsaw(4)),
        ([image for image, _ in pairs], Jigsaw(4)),
    ):
        collate: Any = pickle.loads(pickle.dumps(augmentation.collate))  # as spawned workers get it
        torch.manual_seed(0)
        found = collate(samples)
        torch.manual_seed(0)
        batch = default_collate(samples)
        assert same([found], [augmentation(*batch) if isinstance(batch, list) else augmentation(batch)])


def test_the_line_of_readme_works_in_workers_that_are_not_forked() -> None:
    """As Python 3.14 starts them on Linux; a spawned worker is below."""
    options: dict[str, Any] = {"collate_fn": mix.collate, "workers": 1}
    assert same(load(**options, start="forkserver"), load(**options))


def test_spawned_workers_draw_as_forked_ones() -> None:
    """Augmentations in a data set and in a collate_fn are pickled for spawned workers."""
    options: dict[str, Any] = {"transform": V2Transform(Jigsaw(4)), "collate_fn": mix.collate, "workers": 1}
    batches = load(**options, start="spawn")
    assert same(batches, load(**options))


def test_types_of_torchvision_pass_through_workers() -> None:
    images, soft = load(V2Transform(Jigsaw(4)), collate_fn=mix_types_of_batch, workers=1)[0]
    assert type(images) is tv_tensors.Image
    assert type(soft) is Tensor
    assert soft.shape == (4, 40)
