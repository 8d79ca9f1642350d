"""What the phases of an iteration see (Algorithm 1), and which images and crops make the batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from mosaicaug import Augmentation, CutMix, MixUp, Plan, SnapMix, Targets
from pmsi.recipe import METHODS, RECIPES, Method, Recipe
from pmsi.runtime.seeding import make_generator
from pmsi.training.batches import plan_epoch
from pmsi.training.phases import Draw, Phase, caption_phases, draw_phases, list_phases
from tests.helpers.small_run import RECIPE

SHAPE = (4, 3, 32, 32)
LABELS = torch.tensor([0, 1, 2, 0])


def draw(recipe: Recipe, seed: int = 0) -> list[Draw]:
    return draw_phases(recipe, SHAPE, make_generator(seed))


def count_moves(coarse: Plan, fine: Plan) -> list[int]:
    """Tiles of each image that ``fine`` puts elsewhere than ``coarse`` does."""
    return [int(n) for n in (coarse.refine(fine.grid // coarse.grid).tiles != fine.tiles).sum(1)]


def test_paper_has_four_phases() -> None:
    phases = list_phases(RECIPES["paper"])
    assert phases == [Phase(0, 3, 1.0), Phase(1, 2, 1.0), Phase(2, 1, 1.0), Phase(None, 0, 2.0)]


def test_without_progression_there_is_one_concat_phase_of_weight_1() -> None:
    assert list_phases(replace(RECIPE, augmentation="none", progressive=False)) == [Phase(None, 0, 1.0)]


def test_recursions_are_capped() -> None:
    assert [phase.recursions for phase in list_phases(replace(RECIPE, stages=5))] == [3, 3, 3, 2, 1, 0]
    assert [phase.recursions for phase in list_phases(replace(RECIPE, max_recursions=1))] == [1, 1, 1, 0]
    assert [phase.output for phase in list_phases(replace(RECIPE, stages=5))] == [0, 1, 2, 3, 4, None]


@pytest.mark.parametrize("augmentation", ["jigsaw", "rmg"])
def test_tiles_per_side_halve_from_phase_to_phase(augmentation: Method) -> None:
    draws = draw(replace(RECIPE, augmentation=augmentation))
    assert [one.plan.grid for one in draws] == [8, 4, 2, 1]
    assert [one.plan.moves_tiles for one in draws] == [True, True, True, False]
    assert all(one.targets(LABELS, None) is LABELS for one in draws)


@pytest.mark.parametrize("augmentation", ["jigsaw", "rmg"])
def test_cyclic_law_and_one_draw_per_batch_are_the_default(augmentation: Method) -> None:
    for seed in range(20):
        for one in draw(replace(RECIPE, augmentation=augmentation), seed)[:3]:
            assert (one.plan.tiles != one.plan.home).all()
            own = one.plan.tiles - torch.arange(4, dtype=torch.int32)[:, None] * one.plan.grid**2
            assert (own == own[0]).all()


def test_uniform_law_and_one_draw_per_image_on_request() -> None:
    plans = [draw(replace(RECIPE, per="sample", permutation="uniform"), seed)[2].plan for seed in range(30)]
    assert any((plan.tiles == plan.home).any() for plan in plans)
    assert any(not torch.equal(plan.tiles[0], plan.tiles[1] - 4) for plan in plans)


def test_shared_chain_is_one_recursion_stopped_early() -> None:
    """A cyclic shuffle of one 2x2 window is all that a phase adds to the one after it."""
    for seed in range(5):
        three, two, one, raw = (d.plan for d in draw(replace(RECIPE, chain="shared", per="sample"), seed))
        assert count_moves(two, three) == count_moves(one, two) == count_moves(raw, one) == [4] * 4


def test_independent_phases_share_no_shuffle() -> None:
    plans = [[d.plan for d in draw(RECIPE, seed)] for seed in range(20)]
    assert any(count_moves(two, three) != [4] * 4 for three, two, *_ in plans)


def test_shared_chain_with_capped_recursions() -> None:
    plans = [d.plan for d in draw(replace(RECIPE, chain="shared", stages=5, max_recursions=2))]
    assert [plan.grid for plan in plans] == [4, 4, 4, 4, 2, 1]
    assert all(torch.equal(plan.tiles, plans[0].tiles) for plan in plans[:4])


@pytest.mark.parametrize("augmentation", ["cutmix", "mixup", "snapmix"])
def test_scope_of_mixing(augmentation: Method) -> None:
    maps = torch.rand(4, 2, 2)
    recipe = replace(RECIPE, augmentation=augmentation, mixup_p=1.0, per="sample")
    iteration = draw(replace(recipe, mix_scope="iteration"))
    assert len(iteration) == 4
    assert all(one is iteration[0] for one in iteration)
    assert isinstance(iteration[0].targets(LABELS, maps), Targets)
    phase = draw(replace(recipe, mix_scope="phase"))
    assert len({str(one.plan.to_dict()) for one in phase}) == 4
    assert all(isinstance(one.targets(LABELS, maps), Targets) for one in phase)
    *mixed, raw = draw(replace(recipe, mix_scope="progressive"))
    assert len({str(one.plan.to_dict()) for one in mixed}) == 3
    assert all(isinstance(one.targets(LABELS, maps), Targets) for one in mixed)
    assert not raw.plan.has_overlay.any()
    assert raw.targets(LABELS, maps) is LABELS


def test_mixing_takes_the_recipes_figures() -> None:
    recipe = replace(RECIPE, cutmix_alpha=2.0, mixup_alpha=3.0, mixup_p=0.25, snapmix_beta=4.0, per="sample")
    wanted: dict[Method, Augmentation] = {
        "cutmix": CutMix(2.0),
        "mixup": MixUp(3.0, p=0.25),
        "snapmix": SnapMix(4.0),
    }
    for name, augmentation in wanted.items():
        assert repr(draw(replace(recipe, augmentation=name))[0].augmentation) == repr(augmentation)


def test_without_augmentation_all_phases_see_the_raw_batch() -> None:
    draws = draw(replace(RECIPE, augmentation="none"))
    assert len(draws) == 4
    assert all(one is draws[0] for one in draws)
    assert draws[0].plan.grid == 1
    assert not draws[0].plan.has_overlay.any()
    assert draws[0].targets(LABELS, None) is LABELS


@pytest.mark.parametrize("augmentation", METHODS)
def test_draws_are_a_function_of_the_generator(augmentation: Method) -> None:
    recipe = replace(RECIPE, augmentation=augmentation, mixup_p=1.0)
    logs = [str([one.plan.to_dict() for one in draw(recipe, seed)]) for seed in (0, 0, 1)]
    assert logs[0] == logs[1]
    assert (logs[0] == logs[2]) == (augmentation == "none")


def test_captions() -> None:
    def caption(**fields: object) -> list[str]:
        return caption_phases(Recipe(**{**RECIPE.to_dict(), **fields}))

    assert caption() == ["phase 1: r = 3", "phase 2: r = 2", "phase 3: r = 1", "phase 4: r = 0"]
    assert caption(augmentation="jigsaw") == ["phase 1: n = 8", "phase 2: n = 4", "phase 3: n = 2", "phase 4: n = 1"]
    assert caption(augmentation="none") == caption(augmentation="cutmix") == ["all 4 phases"]
    assert caption(augmentation="none", progressive=False) == ["the one phase"]
    for scope in ("phase", "progressive"):
        assert caption(augmentation="mixup", mix_scope=scope) == ["phase 1", "phase 2", "phase 3", "phase 4"]


def stack(recipe: Recipe, count: int, *, seed: int = 0, epoch: int = 0) -> tuple[Tensor, Tensor]:
    iterations = list(plan_epoch(recipe, count, seed=seed, epoch=epoch))
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


def test_too_few_images_for_one_batch() -> None:
    with pytest.raises(ValueError, match="3 training images do not fill a batch of 4; lower --batch-size"):
        next(plan_epoch(RECIPE, 3, seed=0, epoch=0))


def test_balanced_mini_batches_hold_equally_many_images_of_each_class() -> None:
    recipe, labels = replace(RECIPE, batch_size=6, classes_per_batch=3), torch.arange(40) // 8
    batches = list(plan_epoch(recipe, 40, seed=1, epoch=2, labels=labels))
    assert len(batches) == 6
    for batch in batches:
        assert labels[batch.index].bincount(minlength=5).sort().values.tolist() == [0, 0, 2, 2, 2]
        assert len(set(batch.index.tolist())) == 6
    again = list(plan_epoch(recipe, 40, seed=1, epoch=2, start=4, labels=labels))
    assert [one.index.tolist() for one in again] == [one.index.tolist() for one in batches[4:]]


def test_generators_are_a_function_of_the_whole_key() -> None:
    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 0), (1, 0, 1)]
    states = {int(torch.randint(2**62, (1,), generator=make_generator(*key))) for key in keys}
    assert len(states) == len(keys)
    first, again = (torch.rand(3, generator=make_generator(5, 6)) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("augmentation", ["rmg", "jigsaw"])
@pytest.mark.parametrize("chain", ["independent", "shared"])
def test_some_images_stay_whole(augmentation: Method, chain: Literal["independent", "shared"]) -> None:
    """Of 4,000 images a quarter, within four standard deviations (2.8 points), in each phase."""
    recipe = replace(RECIPE, augmentation=augmentation, chain=chain, per="sample", mosaic_p=0.75, permutation="cyclic")
    draws = draw_phases(recipe, (4000, 3, 32, 32), make_generator(0))
    whole = [(draw.plan.tiles == draw.plan.home).all(1) for draw in draws]
    assert whole[-1].all()
    for one in whole[:-1]:
        assert 1000 - 110 < one.sum() < 1000 + 110
