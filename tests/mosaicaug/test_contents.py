"""Contents of plans: what a law says covers what its plans hold, and is forgotten where a plan changes."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
import torch

from mosaicaug import Augmentation, CutMix, Jigsaw, MixUp, Plan, RecursiveMosaic, SnapMix
from mosaicaug.contents import Contents, Overlay, read_contents

AUGMENTATIONS = [RecursiveMosaic(2), RecursiveMosaic(0), Jigsaw(3), CutMix(), MixUp(), SnapMix(), SnapMix(p=0.5)]
SHAPE = (9, 3, 24, 32)


@pytest.mark.parametrize("aug", AUGMENTATIONS, ids=str)
def test_a_law_says_at_least_what_its_plans_contain(aug: Augmentation) -> None:
    said: list[Contents] = []
    for seed in range(20):
        plan = aug.sample(SHAPE, generator=torch.Generator().manual_seed(seed))
        said.append(read_contents(plan))
        assert all(
            least <= most for least, most in zip(read_contents(dataclasses.replace(plan)), said[-1], strict=True)
        )
    assert len(set(said)) == 1


@pytest.mark.parametrize("field", ["from_box", "opacity"])
def test_a_field_that_was_written_is_read_again(field: str) -> None:
    plan = CutMix().sample(SHAPE, generator=torch.Generator().manual_seed(1))
    assert read_contents(plan) == (False, Overlay.IN_PLACE, False)
    if field == "opacity":
        plan.opacity.fill_(0.5)
    else:
        plan.from_box.copy_(torch.tensor([[0, 0, 5, 5]]).expand(9, 4))
        plan.to_box[0] = torch.tensor([0, 0, 6, 6])
    for changed in (plan, copy.deepcopy(plan), copy.copy(plan), pickle.loads(pickle.dumps(plan))):
        expected = Contents(moves_tiles=False, overlay=Overlay.IN_PLACE, blends=True)
        if field == "from_box":  # both boxes are one tensor
            expected = expected._replace(blends=False)
        assert read_contents(changed) == expected


def test_kinds_are_read_from_the_fields_of_other_plans() -> None:
    still = Plan.identity(2, (8, 8))
    boxes = [torch.tensor([[0, 0, *size]] * 2, dtype=torch.int32) for size in ((4, 4), (4, 5))]
    whole, one = (torch.tensor([[0, 0, 8, 8], last], dtype=torch.int32) for last in ([0, 0, 0, 0], [0, 0, 8, 7]))
    assert [*Overlay] == [0, 1, 2, 3, 4]
    for box, kind in ((whole, Overlay.WHOLE), (one, Overlay.IN_PLACE)):
        with torch.device("meta"):  # plans lie on the CPU, whatever the default is
            assert read_contents(dataclasses.replace(still, from_box=box, to_box=box)).overlay == kind
    cases = {
        Overlay.NONE: still,
        Overlay.IN_PLACE: dataclasses.replace(still, from_box=boxes[0], to_box=boxes[0]),
        Overlay.ELSEWHERE: dataclasses.replace(still, from_box=boxes[0], to_box=boxes[0] + 2),
        Overlay.RESAMPLED: dataclasses.replace(still, from_box=boxes[0], to_box=boxes[1]),
    }
    for overlay, plan in cases.items():
        assert read_contents(plan) == (False, overlay, False)
    taller = dataclasses.replace(still, from_box=boxes[0], to_box=boxes[0] + torch.tensor([0, 0, 1, 0]).int())
    assert read_contents(taller).overlay == Overlay.RESAMPLED
    assert read_contents(dataclasses.replace(still, tiles=still.tiles.flip(0))).moves_tiles


def test_plans_that_are_gone_are_forgotten() -> None:
    from mosaicaug.contents import _drawn

    before = len(_drawn)
    plans = [CutMix().sample(SHAPE) for _ in range(3)]
    assert len(_drawn) >= 3
    del plans
    assert len(_drawn) <= before
