"""The augmentations as modules: what goes in, what comes out, and which generator governs."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

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

DTYPES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]
Make = Callable[[], Augmentation]
FIVE: dict[str, Make] = {
    "RecursiveMosaic": lambda: RecursiveMosaic(2, p=0.7),
    "Jigsaw": lambda: Jigsaw(3, p=0.7),
    "CutMix": lambda: CutMix(p=0.7),
    "MixUp": lambda: MixUp(p=0.7),
    "SnapMix": lambda: SnapMix(p=0.7, cam=lambda images, _: images.flatten(1, -3).float().mean(1)),
}
AUGS: dict[str, Make] = FIVE | {
    "RecursiveMosaic, cyclic": lambda: RecursiveMosaic(3, permutation="cyclic"),
    "CutMix, drawn": lambda: CutMix(true_area=False),
    "Compose": lambda: Compose([RecursiveMosaic(1, p=0.7), Jigsaw(4), CutMix(p=0.7)]),
    "OneOf": lambda: OneOf([RecursiveMosaic(1), Jigsaw(4, p=0.7), CutMix(), MixUp()]),
    "OneOf, per batch": lambda: OneOf([Jigsaw(2), CutMix(), MixUp()], per="batch"),
}
five_augs = pytest.mark.parametrize("make", FIVE.values(), ids=FIVE.keys())
every_aug = pytest.mark.parametrize("make", AUGS.values(), ids=AUGS.keys())


def read_plan(plan: Plan | None, rows: int | None = None, *, partner: bool = True) -> dict[str, Any]:
    """A plan, or its first ``rows``, as numbers that compare."""
    assert plan is not None
    kept = {name: value[:rows] if isinstance(value, list) else value for name, value in plan.to_dict().items()}
    return kept if partner else kept | {"overlay": None}


@every_aug
def test_one_seed_gives_one_plan(make: Make) -> None:
    shape, want = (6, 3, 16, 16), read_plan(make().sample((6, 3, 16, 16), generator=seeded(1)))
    assert read_plan(make().sample(shape, generator=seeded(1))) == want
    assert read_plan(make().sample((6, 8, 1, 16, 16), generator=seeded(1))) == want  # clips
    assert read_plan(make().sample(shape, generator=seeded(2))) != want


@every_aug
def test_the_global_seed_governs_unless_a_generator_is_passed(make: Make) -> None:
    shape, want = (6, 3, 16, 16), read_plan(make().sample((6, 3, 16, 16), generator=seeded(3)))
    state = torch.get_rng_state()
    make().sample(shape, generator=seeded(3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    assert read_plan(make().sample(shape)) == want
    assert read_plan(make().sample(shape)) != want


@every_aug
@pytest.mark.parametrize("batch", [6, 40])
def test_an_images_draw_does_not_depend_on_those_that_follow(make: Make, batch: int) -> None:
    few, many = (make().sample((count, 3, 16, 16), generator=seeded(4)) for count in (5, batch))
    assert read_plan(many, 5, partner=False) == read_plan(few, partner=False)


@every_aug
def test_every_device_draws_the_same_plan(make: Make, device: torch.device) -> None:
    aug, labels = make(), torch.arange(6, device=device)
    maps = torch.rand(6, 4, 4, device=device)
    torch.manual_seed(5)
    aug(torch.rand(6, 3, 16, 16).to(device), labels, maps=maps)
    torch.manual_seed(5)
    torch.rand(6, 3, 16, 16)
    assert read_plan(aug.last_plan) == read_plan(make().sample((6, 3, 16, 16)))


@five_augs
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("lead", [(5,), (5, 2)], ids=["images", "video"])
def test_images_keep_their_kind(
    make: Make, lead: tuple[int, ...], dtype: torch.dtype, layout: str, device: torch.device
) -> None:
    aug, images = make(), number_pixels((*lead, 3, 12, 19), dtype, layout).to(device)
    before, version = images.clone(), images._version
    got, _ = aug(images, torch.arange(5, device=device))
    assert (got.dtype, got.device, got.shape) == (images.dtype, images.device, images.shape)
    assert (got.stride(-3) == 1) == (layout == "channels_last")
    assert torch.equal(images, before)
    assert images._version == version
    assert aug.last_plan is not None
    assert torch.equal(got, apply(images, aug.last_plan))  # replay


@five_augs
@pytest.mark.parametrize("batch", [0, 1, 7])
def test_batches_of_any_length(make: Make, batch: int) -> None:
    got, targets = make()(torch.rand(batch, 3, 9, 11), torch.arange(batch))
    assert got.shape == (batch, 3, 9, 11)
    assert len(targets[0] if isinstance(targets, Targets) else targets) == batch


def test_tiles_leave_labels_alone_and_take_a_single_image() -> None:
    labels, soft = torch.arange(4), torch.rand(4, 7)
    for aug in (RecursiveMosaic(2), Jigsaw(4), Compose([Jigsaw(2), RecursiveMosaic(1)]), OneOf([Jigsaw(2)])):
        for given in (labels, soft):
            _, got = aug(torch.rand(4, 3, 16, 16), given)
            assert torch.equal(got, given)
        image = number_pixels((3, 16, 16))
        single = aug(image)
        assert single.shape == image.shape
        assert torch.equal(single.flatten().sort().values, image.flatten())
        assert torch.equal(single[1] - single[0], image[1] - image[0])  # channels move together
        moved, label = aug(image, torch.tensor(3))
        assert (moved.shape, int(label)) == (image.shape, 3)


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
def test_compose_cuts_the_overlay_from_the_partner_as_it_came_in(make: Make) -> None:
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


Chain = Literal["independent", "shared"]


def read_sources(phase: Tensor) -> Tensor:
    """Where each pixel of numbered ``[B, 1, 8, 8]`` images came from, within its image."""
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


@five_augs
def test_gradients_are_right(make: Make, device: torch.device) -> None:
    plan = make().sample((4, 1, 5, 6), generator=seeded(7))
    images = torch.rand(4, 1, 5, 6, dtype=torch.float64, device=device, requires_grad=True)
    stored = torch.rand(2, 1, 7, 7, dtype=torch.float64, device=device, requires_grad=True)
    window = torch.tensor([[0, 1, 1], [2, 0, 0], [1, 1, 0], [0, 0, 1]])
    index = torch.tensor([1, 0, 1, 1])
    assert torch.autograd.gradcheck(lambda x: apply(x, plan), (images,))
    assert torch.autograd.gradcheck(
        lambda x: apply(x, plan, window=window, index=index, mean=[0.5], std=[0.2]), (stored,)
    )


@every_aug
def test_modules_are_copied_and_pickled(make: Make) -> None:
    aug = make()
    assert isinstance(aug, nn.Module)
    if isinstance(aug, SnapMix):
        aug.cam = None  # a lambda has no name to pickle it by
    for twin in (copy.deepcopy(aug), pickle.loads(pickle.dumps(aug))):
        plans = [one.sample((5, 3, 16, 16), generator=seeded(8)) for one in (aug, twin)]
        assert read_plan(plans[0]) == read_plan(plans[1])
