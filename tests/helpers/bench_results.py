"""Made-up results of both benchmarks, as their files hold them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.results import Row
from bench.throughput.cases import list_pairs
from bench.throughput.rows import make_row, make_times
from bench.training import measure

MILLISECONDS = {
    "ours": 20.0,
    "ours_out": 12.0,
    "copy": 10.0,
    "kornia": 60.0,
    "torchvision": 10.0,
    "timm": 19.8,
    "dali": 30.0,
    "torchvision_door": 21.0,
    "timm_door": 22.0,
    "kornia_door": 25.0,
}
"""Time of a call of each side."""


def make_environment(device_type: str) -> dict[str, Any]:
    """Head of a file of results."""
    return {"device": "Fast One", "device_type": device_type, "threads": 2, "commit": "abc", "versions": {}}


def make_throughput_rows() -> Iterator[Row]:
    """Row of every case and side of a CPU: timed, skipped or failed."""
    for case, side in list_pairs("cpu"):
        if side == "loop":
            yield make_row(case, side, failed="GateError: a tile is missing")
        elif side == "torchvision" and case.per == "sample":
            yield make_row(case, side, skipped="draws once per batch")
        else:
            seconds = MILLISECONDS[side] / 1000
            found = make_times(case, median=seconds, q1=seconds, q3=seconds, rounds=5)
            if side.startswith("ours"):
                found |= {"peak_extra_bytes": 3 * 2**20, "plan_bytes": 2**20}
            yield make_row(case, side, **found)


def make_training_rows() -> Iterator[Row]:
    """Row of every input and every setting of a step on a GPU."""
    for recipe in measure.INPUTS.values():
        for side, rate in (("plain", 100.0), ("ours", 850.0)):
            yield measure.make_row("input", side, recipe, [rate] * 3, first_epoch_images_per_s=rate / 2)
    for side, rate in (("plain", 50.0), ("32", 100.0), ("bf16", 200.0), ("bf16, compiled", 250.0)):
        share = {} if side == "plain" else {"input_share": 0.0123}
        yield measure.make_row("step", side, measure.PAPER, [rate], step_bytes=2e9, **share)
