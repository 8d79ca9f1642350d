"""The five augmentations: phases of progressive training, and arguments that are refused."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from mosaicaug import (
    CutMix,
    Jigsaw,
    MixUp,
    RecursiveMosaic,
    SnapMix,
    class_activation_map,
    mix_labels,
)
from tests.helpers.oracle import number_pixels, seeded

Chain = Literal["independent", "shared"]


def read_sources(phase: Tensor) -> Tensor:
    """Source of each pixel of numbered ``[B, 1, 8, 8]`` images, counted within its image."""
    return phase[:, 0].long() - torch.arange(len(phase))[:, None, None] * 64


@pytest.mark.parametrize("chain", ["independent", "shared"])
def test_phases_are_the_inputs_of_progressive_training(chain: Chain) -> None:
    images = number_pixels((4, 3, 16, 16))
    phases = RecursiveMosaic.phases(images, 3, chain=chain)
    assert len(phases) == 4
    assert torch.equal(phases[3], images)
    for r, phase in zip((3, 2, 1), phases, strict=False):
        side = 16 >> r  # the smallest patch still holds together
        corner = phase[:, :, ::side, ::side].repeat_interleave(side, 2).repeat_interleave(side, 3)
        steps = torch.arange(side)
        inner = (steps[:, None] * 16 + steps).repeat(16 // side, 16 // side)
        assert torch.equal(phase, corner + inner)
        assert torch.equal(phase.flatten(1).sort().values, images.flatten(1))
    assert RecursiveMosaic.phases(images[0], 2, chain=chain)[0].shape == (3, 16, 16)
    assert RecursiveMosaic.phases(number_pixels((2, 3, 1, 16, 16)), 2, chain=chain)[0].shape == (2, 3, 1, 16, 16)
    assert [len(RecursiveMosaic.phases(images, r, chain=chain)) for r in (0, 1, 2)] == [1, 2, 3]


def test_phases_of_a_shared_chain_are_steps_of_one_recursion() -> None:
    images = number_pixels((50, 1, 8, 8))
    phases = [read_sources(phase) for phase in RecursiveMosaic(3, permutation="cyclic").phases(images, chain="shared")]
    inside = torch.ones(50, 8, 8, dtype=torch.bool)
    for coarse, fine, side in [(3, 2, 8), (2, 1, 4), (1, 0, 2)]:
        changed = phases[coarse] != phases[fine]
        assert (changed & ~inside).sum() == 0  # nested in the patch before
        blocks = changed.view(50, 8 // side, side, 8 // side, side).transpose(2, 3).flatten(3)
        assert torch.equal(blocks.any(3), blocks.all(3))  # a cyclic shuffle moves all of its patch
        assert (blocks.any(3).flatten(1).sum(1) == 1).all()
        inside = changed


def test_phases_of_an_independent_chain_share_no_shuffle() -> None:
    images = number_pixels((600, 1, 8, 8))
    phases = RecursiveMosaic(2, permutation="cyclic").phases(images)
    quadrants = [read_sources(phase) // 32 * 2 + read_sources(phase) % 8 // 4 for phase in phases[:2]]
    same = int((quadrants[0] == quadrants[1]).flatten(1).all(1).sum())
    assert abs(same - 100) < 5 * (600 * 5 / 36) ** 0.5  # one of six by chance


def test_phases_of_an_instance_have_its_settings() -> None:
    images = number_pixels((40, 1, 8, 8))
    assert all(torch.equal(phase, images) for phase in RecursiveMosaic(2, p=0.0).phases(images))
    per_batch = [read_sources(phase) for phase in RecursiveMosaic(1, per="batch").phases(images)]
    assert len(per_batch) == 2
    assert (per_batch[0] == per_batch[0][0]).all()
    cyclic = read_sources(RecursiveMosaic(3, permutation="cyclic").phases(images)[0])
    assert not (cyclic == torch.arange(64).view(8, 8)).any()


@pytest.mark.parametrize("chain", ["independent", "shared"])
def test_phases_obey_generators(chain: Chain) -> None:
    images = number_pixels((5, 1, 8, 8))
    once, again, other = (RecursiveMosaic.phases(images, 3, chain=chain, generator=seeded(seed)) for seed in (6, 6, 7))
    assert all(torch.equal(one, two) for one, two in zip(once, again, strict=True))
    assert not torch.equal(once[0], other[0])


@pytest.mark.parametrize("chain", ["independent", "shared"])
def test_an_images_phases_do_not_depend_on_those_that_follow(chain: Chain) -> None:
    images = number_pixels((40, 1, 8, 8))
    few, many = (RecursiveMosaic.phases(images[:n], 3, chain=chain, generator=seeded(6)) for n in (5, 40))
    assert all(torch.equal(one, two[:5]) for one, two in zip(few, many, strict=True))


# Refusals.


IMAGES, LABELS = torch.rand(4, 3, 16, 16), torch.arange(4)


@pytest.mark.parametrize("r", [-1, -7])
def test_r_below_0(r: int) -> None:
    with pytest.raises(ValueError, match=rf"RecursiveMosaic.*\br\b.*{r}"):
        RecursiveMosaic(r)
    with pytest.raises(ValueError, match=rf"RecursiveMosaic.*\br\b.*{r}"):
        RecursiveMosaic.phases(IMAGES, r)


@pytest.mark.parametrize("value", [2.0, 1.5, "3", None, True])
def test_r_or_n_that_is_no_integer(value: Any) -> None:
    with pytest.raises(TypeError, match=rf"RecursiveMosaic.*\br\b.*{value}"):
        RecursiveMosaic(value)
    with pytest.raises(TypeError, match=rf"Jigsaw.*\bn\b.*{value}"):
        Jigsaw(value)


@pytest.mark.parametrize("n", [0, -2])
def test_n_below_1(n: int) -> None:
    with pytest.raises(ValueError, match=rf"Jigsaw.*\bn\b.*{n}"):
        Jigsaw(n)


@pytest.mark.parametrize("make", [RecursiveMosaic, Jigsaw, CutMix, MixUp, SnapMix])
def test_options_outside_their_range(make: Any) -> None:
    for p in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=rf"{make.__name__}.*\bp\b.*{p}"):
            make(p=p)
    with pytest.raises(ValueError, match=rf"{make.__name__}.*per.*image"):
        make(per="image")


def test_choices_that_do_not_exist() -> None:
    for make in (RecursiveMosaic, Jigsaw):
        with pytest.raises(ValueError, match=rf"{make.__name__}.*permutation.*sattolo"):
            make(permutation="sattolo")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"RecursiveMosaic.*chain.*linked"):
        RecursiveMosaic.phases(IMAGES, 2, chain="linked")


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan"), float("inf")])
def test_alpha_not_above_0(alpha: float) -> None:
    for make, name in ((CutMix, "alpha"), (MixUp, "alpha"), (SnapMix, "beta")):
        with pytest.raises(ValueError, match=rf"{make.__name__}.*{name}.*{alpha}"):
            make(alpha)


def test_images_smaller_than_the_grid() -> None:
    with pytest.raises(ValueError, match=r"RecursiveMosaic.*8x8.*16x7"):
        RecursiveMosaic(3)(torch.rand(2, 3, 16, 7))
    with pytest.raises(ValueError, match=r"Jigsaw.*5x5.*4x16"):
        Jigsaw(5).sample((2, 3, 4, 16))
    with pytest.raises(ValueError, match=r"RecursiveMosaic.*16x16.*8x8"):
        RecursiveMosaic.phases(torch.rand(2, 3, 8, 8), 4)


def test_maps_missing_or_of_another_batch() -> None:
    with pytest.raises(ValueError, match=r"SnapMix.*maps"):
        SnapMix()(IMAGES, LABELS)
    for maps in (torch.rand(3, 2, 2), torch.rand(4, 1, 2, 2)):
        with pytest.raises(ValueError, match=rf"SnapMix.*maps.*\[{', '.join(map(str, maps.shape))}\]"):
            SnapMix()(IMAGES, LABELS, maps=maps)
        with pytest.raises(ValueError, match=r"mix_labels.*maps"):
            mix_labels(SnapMix().sample(IMAGES.shape), LABELS, maps=maps)
    with pytest.raises(ValueError, match=r"class_activation_map.*3"):
        class_activation_map(torch.rand(4, 8, 2, 2), torch.rand(10, 8), None, torch.arange(3))
