"""Hostile plans, as JSON gives them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mosaicaug import CutMix, Plan
from mosaicaug.plan import overlay_share
from tests.hostile.case import Case


def read_plan(changes: dict[str, Any], _: Path) -> Plan:
    """Read a plan of two images of 8 x 8 px, of which fields were replaced."""
    torch.manual_seed(0)
    values = json.loads(json.dumps(CutMix().sample((2, 3, 8, 8)).to_dict()))
    return Plan.from_dict({**values, **changes})


def read_other(values: Any, _: Path) -> Plan:
    return Plan.from_dict(values)


def nest(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def count_large_overlay(_: Path) -> None:
    """An overlay of 60,000 x 60,000 px has more pixels than 32 bits count."""
    plan = Plan.identity(1, (60_000, 60_000)).to_dict()
    box = [[0, 0, 60_000, 60_000]]
    found = Plan.from_dict({**plan, "from_box": box, "to_box": box, "opacity": [0.5]})
    assert overlay_share(found).tolist() == [0.5]


_MALFORMED = "Plan.from_dict: a field is malformed"
PLANS = (
    Case("tiles that are fractions", partial(read_plan, {"tiles": [[0.5], [1.5]]}), "tiles must hold integers"),
    Case("tiles beyond 64 bits", partial(read_plan, {"tiles": [[2**70], [0]]}), _MALFORMED),
    Case("tiles beyond 32 bits", partial(read_plan, {"tiles": [[2**40], [0]]}), _MALFORMED),
    Case("tiles that are NaN", partial(read_plan, {"tiles": [[float("nan")], [0.0]]}), _MALFORMED),
    Case("tiles that are words", partial(read_plan, {"tiles": [["0"], ["1"]]}), _MALFORMED),
    Case("tiles of other images", partial(read_plan, {"tiles": [[0], [2]]}), "tiles must lie in 0..1, got 0..2"),
    Case("tiles that are no square", partial(read_plan, {"tiles": [[0, 0], [1, 1]]}), "must hold G*G tiles per image"),
    Case("no tiles", partial(read_plan, {"tiles": None}), _MALFORMED),
    Case("100,000 lists in each other", partial(read_plan, {"tiles": nest(100_000)}), _MALFORMED),
    Case("an overlay from an image below 0", partial(read_plan, {"overlay": [0, -1]}), "overlay must lie in 0..1"),
    Case("a box beyond the image", partial(read_plan, {"to_box": [[0, 0, 9, 9]] * 2}), "boxes must be y0, x0, y1, x1"),
    Case(
        "a box that is turned round", partial(read_plan, {"to_box": [[4, 4, 2, 2]] * 2}), "boxes must be y0, x0, y1, x1"
    ),
    Case("opacities of NaN", partial(read_plan, {"opacity": [float("nan")] * 2}), "opacity must lie in 0..1"),
    Case("opacities of 1e300", partial(read_plan, {"opacity": [1e300] * 2}), "opacity must lie in 0..1"),
    Case("a size below 0", partial(read_plan, {"size": [-8, -8]}), "boxes must be"),
    Case("a size of words", partial(read_plan, {"size": "ab"}), "size must be two integers"),
    Case("a field too many", partial(read_plan, {"eval": "x"}), "Plan.from_dict: needs the fields"),
    Case("a number in the place of the plan", partial(read_other, 5), "Plan.from_dict: needs the fields"),
    Case("numbers in the place of names", partial(read_other, {1: 2, "size": 3}), "Plan.from_dict: needs the fields"),
    Case("an overlay of 3.6 billion pixels", count_large_overlay, then="its share of the image is counted exactly"),
)
