"""What the phases of an iteration see (Algorithm 1), and which images and crops make the batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch

from mosaicaug import Augmentation, CutMix, MixUp, Plan, SnapMix, Targets
from pmsi.recipe import METHODS, RECIPES, Method, Recipe
from pmsi.runtime.seeding import make_generator
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
@pytest.mark.parametrize("chain", ["independent", "shared"])
def test_the_concat_sees_mosaics_on_request(augmentation: Method, chain: Literal["independent", "shared"]) -> None:
    """The other phases see what they saw before."""
    recipe = replace(RECIPE, augmentation=augmentation, chain=chain)
    *stages, concat = draw(replace(recipe, concat_recursions=1))
    assert list_phases(replace(recipe, concat_recursions=1))[-1] == Phase(None, 1, 2.0)
    assert concat.plan.grid == 2
    assert (concat.plan.tiles != concat.plan.home).all()
    *before, raw = draw(recipe)
    assert not raw.plan.moves_tiles
    assert [str(one.plan.to_dict()) for one in stages] == [str(one.plan.to_dict()) for one in before]


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
