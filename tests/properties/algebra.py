"""Properties of plans as values: refined, composed, inverted, written and read, and refused where a field is wrong."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import fields as list_fields
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mosaicaug import Plan, apply
from tests.properties.cases import Case
from tests.properties.pixels import calls, expect_bits, tried


def check_algebra(case: Case) -> None:
    """AssertionError unless plans that are refined, composed and inverted make the images they stand for."""
    plan, images = case.make_plan(), case.make_images()
    tried["algebra"] += case.batch
    calls["algebra"] += 1
    made = apply(images, plan)
    # 1. A finer grid shows the same, or is refused because tiles that move cannot be cut.
    factor = 1 + case.seed % 4
    try:
        finer = plan.refine(factor)
    except ValueError:
        tile = [side // plan.grid for side in case.size]
        cut = any(side % factor for side in tile)
        assert (cut and plan.moves_tiles) or plan.grid * factor > min(case.size)
    else:
        assert finer.grid == plan.grid * factor
        expect_bits(apply(images, finer), made)
    # 2. Tiles put back.
    tiles = Plan.of_tiles(plan.tiles, plan.size)
    if case.batch:
        is_permutation = len(set(plan.tiles.flatten().tolist())) == plan.tiles.numel()
        assert (_read_refusal(tiles.invert) is not None) == (not is_permutation)
        assert (_read_refusal(plan.invert) is not None) == (not is_permutation or bool(plan.has_overlay.any()))
        if is_permutation:
            back = tiles.invert()
            expect_bits(apply(apply(images, tiles), back), images.contiguous())
            assert not tiles.compose(back).moves_tiles
            assert not back.compose(tiles).moves_tiles
    # 3. One plan after another, or a refusal for one of the reasons that are documented.
    other = replace(case, seed=case.seed + 1, grid=1 + case.seed % min(*case.size, 6)).make_plan()
    for first, then in ((tiles, other), (plan, other), (other, tiles), (plan, tiles)):
        try:
            both = first.compose(then)
        except ValueError:
            assert _may_refuse(first, then)
        else:
            expect_bits(apply(images, both), apply(apply(images, first), then))


def check_serialisation(case: Case) -> None:
    """AssertionError unless plans come back whole from JSON, pickles and copies, and replay the same bits."""
    plan, random = case.make_plan(), np.random.default_rng([case.seed, 7])
    if case.seed % 2:
        share = torch.from_numpy(random.random(case.batch)).float()
        plan = replace(plan, drawn_share=share)
    tried["serialisation"] += case.batch
    calls["serialisation"] += 1
    copies = [
        Plan.from_dict(json.loads(json.dumps(plan.to_dict()))),
        pickle.loads(pickle.dumps(plan)),
        copy.deepcopy(plan),
        plan.to("cpu"),
    ]
    for twin in copies:
        if case.batch:  # an empty list has lost its grid
            assert twin.to_dict() == plan.to_dict()
        for field in list_fields(Plan):
            one, two = getattr(twin, field.name), getattr(plan, field.name)
            if isinstance(two, Tensor) and case.batch:
                expect_bits(one, two)
        images = case.make_images()
        expect_bits(apply(images, twin), apply(images, plan))


def check_refusals(case: Case) -> None:
    """AssertionError unless a plan with one wrong number is refused in one line, whichever number it is."""
    fields, random = case.make_fields(), np.random.default_rng([case.seed, 8])
    if not case.batch:
        return
    tried["refusals"] += 1
    calls["refusals"] += 1
    wrong = copy.deepcopy(fields)
    entry, kind = int(random.integers(case.batch)), int(random.integers(7))
    beyond = random.choice([-1, 1, 2**30, -(2**31)])
    count, limit = case.grid**2, [case.height, case.width]
    if kind == 0:
        wrong["tiles"][entry][int(random.integers(count))] = int(
            beyond if beyond < 0 else case.batch * count - 1 + beyond
        )
    elif kind == 1:
        wrong["overlay"][entry] = int(beyond if beyond < 0 else case.batch - 1 + beyond)
    elif kind in (2, 3):
        axis, name = int(random.integers(2)), ("from_box", "to_box")[kind - 2]
        box = wrong[name][entry]
        if beyond < 0:
            box[axis] = int(beyond)
        else:
            box[axis + 2] = int(limit[axis] + beyond)
    elif kind == 4:
        wrong["opacity"][entry] = float(random.choice([-1e-6, 1.0001, math.nan, math.inf]))
    elif kind == 5:
        wrong["from_box"][entry], wrong["to_box"][entry] = [0, 0, 0, 1], [0, 0, 1, 1]
    else:
        wrong["tiles"] = [row + [0, 0] for row in wrong["tiles"]]
        if math.isqrt(count + 2) ** 2 == count + 2:
            return
    message = _read_refusal(lambda: Plan.from_dict(wrong))
    assert message is not None, f"accepted: {wrong}"
    assert "\n" not in message.strip()


def _read_refusal(work: Callable[[], object]) -> str | None:
    """Message of the ValueError that a call raises; None if it raises none."""
    try:
        work()
    except ValueError as error:
        return str(error)
    return None


def _may_refuse(first: Plan, then: Plan) -> bool:
    """The reasons of `Plan.compose`: an overlay that is moved or covered, or cut from moved tiles; no common grid."""
    if first.has_overlay.any() and (then.moves_tiles or bool(then.has_overlay.any())):
        return True
    moved = (first.tiles != first.home).any(1)
    if moved[then.overlay[then.has_overlay].long()].any():
        return True
    grid = math.lcm(first.grid, then.grid)
    return grid > min(first.size) or any(
        side // plan.grid % (grid // plan.grid) for plan in (first, then) if plan.moves_tiles for side in first.size
    )
