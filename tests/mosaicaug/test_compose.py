"""`Compose` and `OneOf`: members in order, one of them per image, and members that do not fit together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo

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
from tests.helpers.oracle import number_pixels, seeded


def test_compose_applies_its_members_in_order() -> None:
    images = number_pixels((6, 2, 17, 24))
    first, second = RecursiveMosaic(3, p=0.8), Jigsaw(4, p=0.8)
    aug = Compose([first, second])
    got = aug(images)
    plans = first.last_plan, second.last_plan
    assert plans[0] is not None
    assert plans[1] is not None
    assert torch.equal(got, apply(apply(images, plans[0]), plans[1]))
    assert not torch.equal(got, apply(apply(images, plans[1]), plans[0]))


@pytest.mark.parametrize("make", [lambda: CutMix(p=0.8), lambda: MixUp(p=0.8), lambda: SnapMix(p=0.8)])
def test_compose_cuts_the_overlay_from_the_partner_as_it_came_in(make: Callable[[], Augmentation]) -> None:
    images = number_pixels((8, 1, 16, 16))
    tiles, mixing = Jigsaw(4, permutation="cyclic"), make()
    got, _ = Compose([tiles, mixing])(images, torch.arange(8), maps=torch.rand(8, 2, 2))
    assert tiles.last_plan is not None
    assert mixing.last_plan is not None
    base, mixed = apply(images, tiles.last_plan), apply(images, mixing.last_plan)
    rows = zip(mixing.last_plan.to_box.tolist(), mixing.last_plan.opacity.tolist(), strict=True)
    for entry, ((top, left, bottom, right), opacity) in enumerate(rows):
        want, box = base[entry].clone(), (0, slice(top, bottom), slice(left, right))
        want[box] += mixed[entry][box] - (1 - opacity) * images[entry][box] - opacity * base[entry][box]
        torch.testing.assert_close(got[entry], want, rtol=1e-5, atol=1e-3)


def test_one_of_gives_every_image_one_members_result() -> None:
    images = number_pixels((60, 1, 16, 16))
    members = [Jigsaw(2, permutation="cyclic"), CutMix(), MixUp()]
    got, _ = OneOf(members)(images, torch.arange(60))
    results = [apply(images, member.last_plan) for member in members if member.last_plan is not None]
    same = torch.stack([(got == result).flatten(1).all(1) for result in results])
    assert len(results) == 3
    assert same.any(0).all()
    assert (same.sum(1) > 5).all()


def test_one_of_per_batch_and_weights() -> None:
    members = [Jigsaw(2, permutation="cyclic"), CutMix(), MixUp()]
    for seed in range(20):
        plan = OneOf(members, per="batch").sample((9, 3, 512, 512), generator=seeded(seed))
        kinds = [(plan.tiles != plan.home).any(1), plan.to_box[:, 2:].gt(0).all(1) & plan.opacity.eq(1)]
        assert all(bool(kind.all()) == bool(kind.any()) for kind in kinds)
    sure = OneOf(members, weights=[0, 3, 0]).sample((200, 3, 512, 512))
    assert torch.equal(sure.tiles, sure.home)
    assert (sure.opacity == 1).all()


def test_members_that_do_not_fit_together() -> None:
    for members in ([CutMix(), Jigsaw(2)], [CutMix(), MixUp()]):
        with pytest.raises(ValueError, match=r"Compose.*last"):
            Compose(members)
    for make in (Compose, OneOf):
        with pytest.raises(ValueError, match=rf"{make.__name__}"):
            make([])
        with pytest.raises(ValueError, match=rf"{make.__name__}.*Identity"):
            make([torch.nn.Identity()])  # type: ignore[list-item]
    for weights in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(ValueError, match=r"OneOf.*2.*weights"):
            OneOf([Jigsaw(2), CutMix()], weights=weights)
    with pytest.raises(ValueError, match=r"OneOf.*num_classes"):
        OneOf([CutMix(num_classes=3), MixUp()])


def test_targets_of_one_of_belong_to_its_last_draw() -> None:
    aug = OneOf([CutMix(), MixUp()])
    with pytest.raises(ValueError, match=r"OneOf\.targets.*last draw"):
        aug.targets(Plan.identity(4, (8, 8)), torch.arange(4))
    plan = aug.sample((4, 3, 8, 8))
    with pytest.raises(ValueError, match=r"OneOf\.targets.*last draw"):
        aug.targets(Plan.identity(5, (8, 8)), torch.arange(5))
    assert isinstance(aug.targets(plan, torch.arange(4)), Targets)


@pytest.mark.parametrize("make", [Compose, OneOf])
def test_grids_that_do_not_fit_are_refused_whatever_is_drawn(make: Any) -> None:
    """At 64 px, tiles of 21 and of 16 px have no common part; at 48 px they have."""
    nested = Compose([make([Jigsaw(3, p=0.01), RecursiveMosaic(2, p=0.01)]), CutMix()])
    for aug in (make([Jigsaw(3, p=0.0), RecursiveMosaic(2)]), nested):
        with pytest.raises(ValueError, match=r"grids of \[3, 4\] tiles per side .* must be multiples of 12"):
            aug.sample((2, 3, 64, 64))
        assert aug.sample((2, 3, 48, 60)).size == (48, 60)


def test_one_member_for_a_batch_needs_no_common_grid_unless_compiled() -> None:
    torch.compiler.reset()
    aug, images = OneOf([Jigsaw(3), RecursiveMosaic(2)], per="batch"), torch.rand(2, 3, 64, 64)
    assert {aug.sample(images.shape).grid for _ in range(20)} == {3, 4}
    with pytest.raises(torch._dynamo.exc.Unsupported, match="have no common grid"):
        torch.compile(aug, fullgraph=True, backend="eager")(images)


def test_a_member_that_draws_another_grid_than_it_says() -> None:
    class Liar(Augmentation):
        def draw(self, batch: int, size: tuple[int, int], generator: torch.Generator | None) -> Plan:
            return Jigsaw(2).draw(batch, size, generator)

    aug = Compose([Liar(p=1.0, per="sample"), Jigsaw(2)])
    with pytest.raises(ValueError, match=r"^Liar: grid says 1 tiles per side, but it drew 2$"):
        aug.sample((2, 3, 8, 8))


@pytest.mark.parametrize("make", [Compose, OneOf])
def test_one_member_is_enough(make: Any) -> None:
    images, labels = number_pixels((5, 1, 8, 8)), torch.arange(5)
    tiles, mixing = make([Jigsaw(2)]), make([CutMix()])
    _, kept = tiles(images, labels)
    assert kept is labels
    mixed, targets = mixing(images, labels)
    assert torch.equal(mixed, apply(images, mixing.members[0].last_plan))
    assert isinstance(targets, Targets)
    assert torch.equal(targets.labels_b, labels[mixing.last_plan.overlay.long()])


def test_one_image_chooses_for_its_batch() -> None:
    aug = OneOf([Jigsaw(2), CutMix()], per="batch")
    assert aug.weights == [1.0, 1.0]
    plan = aug.sample((1, 1, 8, 8), generator=seeded(1))
    assert aug.last_choice is not None
    assert len(aug.last_choice) == len(plan) == 1


def test_tiles_that_cannot_be_halved_have_no_common_grid() -> None:
    with pytest.raises(ValueError, match=r"grids of \[2, 4\] tiles per side have no common grid on images of 6x6 px"):
        Compose([Jigsaw(2), Jigsaw(4)]).sample((2, 1, 6, 6))
