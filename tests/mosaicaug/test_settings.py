"""Settings of augmentations: checked whenever they are set, and followed by calls, phases and compiled graphs."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from mosaicaug import Compose, CutMix, Jigsaw, MixUp, OneOf, RecursiveMosaic, SnapMix
from tests.helpers.oracle import seeded

IMAGES = torch.rand(4, 3, 16, 16, generator=seeded(1))


def test_phases_follow_an_instance_as_it_is_now() -> None:
    aug = RecursiveMosaic(3)
    aug.r, aug.per, aug.permutation = 1, "batch", "cyclic"
    want = RecursiveMosaic.phases(IMAGES, 1, per="batch", permutation="cyclic", generator=seeded(2))
    got = aug.phases(IMAGES, generator=seeded(2))
    assert len(got) == len(aug.sample_phases(IMAGES.shape)) == 2
    assert all(torch.equal(*pair) for pair in zip(want, got, strict=True))
    aug.p = 0.0
    assert all(torch.equal(phase, IMAGES) for phase in aug.phases(IMAGES))


def test_grids_and_their_checks_follow() -> None:
    aug, tiles = RecursiveMosaic(1), Jigsaw(2)
    several = Compose([aug, tiles])
    aug.r, tiles.n = 2, 8
    assert (aug.grid, tiles.grid, several.grid) == (4, 8, 8)
    assert [one.sample(IMAGES.shape).grid for one in (aug, tiles, several)] == [4, 8, 8]
    tiles.n = 17
    for one in (tiles, several):
        with pytest.raises(ValueError, match=r"^Jigsaw\(n=17.*at least 17x17 px"):
            one(IMAGES)


def test_a_compiled_graph_follows() -> None:
    torch.compiler.reset()
    aug, images = Jigsaw(2, permutation="cyclic"), torch.rand(2, 3, 16, 16)
    members = OneOf([Jigsaw(2), MixUp(num_classes=4)], [1, 0])
    compiled = torch.compile(aug, fullgraph=True, backend="aot_eager")
    mixed = torch.compile(members, fullgraph=True, backend="aot_eager")
    for n in (2, 4):
        aug.n = n
        torch.manual_seed(3)
        made = compiled(images)
        torch.manual_seed(3)
        assert torch.equal(made, aug(images))
    aug.p = 0.0
    assert torch.equal(compiled(images), images)
    for weights in ([1, 0], [0, 1]):
        members.weights = weights
        torch.manual_seed(3)
        made = mixed(images, torch.tensor([0, 3]))
        torch.manual_seed(3)
        assert all(torch.equal(*pair) for pair in zip(made, members(images, torch.tensor([0, 3])), strict=True))


def test_members_may_change_their_classes() -> None:
    first, second = CutMix(num_classes=4), MixUp(num_classes=4)
    aug = OneOf([first, second])
    first.num_classes = 6
    with pytest.raises(ValueError, match=r"^OneOf: num_classes must be the same for all mixing members"):
        aug(IMAGES, torch.arange(4))
    second.num_classes = 6
    assert aug(IMAGES, torch.arange(4))[1].shape == (4, 6)


@pytest.mark.parametrize(
    ("aug", "name", "value", "message"),
    [
        (CutMix(), "p", 1.5, "CutMix: p must lie in 0..1, got 1.5"),
        (CutMix(), "p", float("nan"), "CutMix: p must lie in 0..1, got nan"),
        (CutMix(), "p", "0.5", "CutMix: p must be a number, got '0.5'"),
        (CutMix(), "p", True, "CutMix: p must be a number, got True"),
        (CutMix(), "per", "image", "CutMix: per must be one of ('sample', 'batch'), got 'image'"),
        (MixUp(), "alpha", 0, "MixUp: alpha must be above 0, got 0"),
        (MixUp(), "alpha", "1", "MixUp: alpha must be a number, got '1'"),
        (MixUp(), "num_classes", 0, "MixUp: num_classes must be at least 1, got 0"),
        (SnapMix(), "beta", float("inf"), "SnapMix: beta must be above 0, got inf"),
        (RecursiveMosaic(), "r", -1, "RecursiveMosaic: r must be at least 0, got -1"),
        (RecursiveMosaic(), "r", 2.0, "RecursiveMosaic: r must be an integer, got 2.0"),
        (Jigsaw(), "n", 0, "Jigsaw: n must be at least 1, got 0"),
        (Jigsaw(), "permutation", "any", "Jigsaw: permutation must be one of ('uniform', 'cyclic'), got 'any'"),
        (OneOf([Jigsaw()]), "weights", [-1], "OneOf: needs 1 weights of 0 or more, not all 0, got [-1.0]"),
        (OneOf([Jigsaw()]), "weights", 3, "OneOf: weights must be a list of numbers, got 3"),
    ],
)
def test_a_wrong_value_is_refused_when_it_is_set(aug: Any, name: str, value: object, message: str) -> None:
    before = getattr(aug, name)
    with pytest.raises((ValueError, TypeError)) as caught:
        setattr(aug, name, value)
    assert str(caught.value) == message
    assert getattr(aug, name) is before


def test_the_number_of_weights_is_checked_by_the_next_call() -> None:
    aug = OneOf([Jigsaw(2), RecursiveMosaic(1)])
    aug.weights = [1.0]
    with pytest.raises(ValueError, match=r"^OneOf: needs 2 weights"):
        aug(IMAGES)


def test_numbers_of_numpy_are_numbers() -> None:
    five: Any = np.int32(5)
    half: Any = np.float32(0.5)
    weights: Any = np.array([1, 2])
    assert repr(RecursiveMosaic(five, p=half)) == repr(RecursiveMosaic(5, p=0.5))
    assert repr(CutMix(half, num_classes=five)) == repr(CutMix(0.5, num_classes=5))
    assert OneOf([Jigsaw(), MixUp()], weights=weights).weights == [1.0, 2.0]


def test_copies_and_pickles_keep_settings_of_their_own() -> None:
    aug = RecursiveMosaic(3)
    aug.r = 2
    for copied in (copy.deepcopy(aug), pickle.loads(pickle.dumps(aug))):
        assert repr(copied) == repr(aug)
        copied.r = 1
        assert (copied.grid, len(copied.phases(IMAGES))) == (2, 2)
    assert (aug.grid, len(aug.phases(IMAGES))) == (4, 3)


@pytest.mark.parametrize("weights", [[], [-1, 2], [0, 0], [1, float("inf")], [float("nan"), 1]], ids=str)
def test_weights_are_chances(weights: list[float]) -> None:
    with pytest.raises(ValueError, match=rf"^OneOf: needs {len(weights)} weights of 0 or more, not all 0, got "):
        OneOf([Jigsaw(2), CutMix()], weights=weights)


def test_a_method_that_follows_settings_keeps_its_words() -> None:
    method = vars(RecursiveMosaic)["phases"]
    assert (method.__name__, method.__doc__) == ("phases", method.method.__doc__)
    assert method.__doc__


def test_an_augmentation_shows_its_settings() -> None:
    assert repr(SnapMix(2.0, num_classes=5, p=0.5)) == "SnapMix(beta=2.0, num_classes=5, p=0.5, per='sample')"
