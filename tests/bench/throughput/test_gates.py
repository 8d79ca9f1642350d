"""The gates accept every side that does what its case says, and see draws that are not as the case says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.measure import Run
from bench.throughput import gates
from bench.throughput.batch import MEAN, STD, Batch, UnfitError
from bench.throughput.cases import LEVELS, PEERS, Case, centre, list_pairs
from bench.throughput.laws import GateError
from bench.throughput.sides import make_run, read_images

SIZE = 64  # px of what the gates look at here
ONCE = ("torchvision", "loop")  # sides that draw once per batch


def can_run(case: Case, side: str) -> bool:
    if side in ONCE and case.per == "sample":
        return False
    if case.task == "pipeline":
        return (side, case.augmentation) not in {("kornia", "rmg"), ("torchvision", "rmg"), ("torchvision", "jigsaw")}
    whole = case.augmentation == "mixup"  # blended, so floating
    return case.dtype != "uint8" or not (side == "kornia" or (whole and side in ("torchvision", "timm")))


GATED = [
    pytest.param(case, side, id=f"{case.name}-{side}")
    for case, side in list_pairs("cpu")
    if (case.batch, case.size, case.level) == (32, 448, LEVELS.get(case.augmentation))
    if case.task != "draw" and can_run(case, side)
]


@pytest.mark.parametrize(("case", "side"), GATED)
def test_every_side_passes_its_gate(case: Case, side: str) -> None:
    try:
        gates.check_side(case, side, "cpu", size=SIZE)
    except UnfitError as reason:
        assert "is not installed" in str(reason)  # noqa: PT017
        pytest.skip(str(reason))


def instead(**changes: Any) -> Callable[[Case, Batch], Run]:
    """Our side of another case."""
    return lambda case, batch: make_run(replace(case, **changes), "ours", batch)


@pytest.mark.parametrize("name", ["jigsaw", "cutmix"])
def test_a_pipeline_that_always_crops_the_middle_is_seen(name: str) -> None:
    def make(case: Case, batch: Batch) -> Run:
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        edge = (batch.images.shape[-1] - case.size) // 2
        images = batch.images[:4, :, edge : edge + case.size, edge : edge + case.size].contiguous()
        run = make_run(replace(case, task="augment"), "ours", replace(batch, images=images))
        return lambda: (read_images(run()).float() - mean) / std

    with pytest.raises(GateError, match="crops or flips never vary"):
        gates.check_runs(centre(name, task="pipeline"), "cpu", make, size=SIZE)


@pytest.mark.parametrize("name", PEERS)
def test_gates_know_who_draws_once(name: str) -> None:
    with pytest.raises(GateError, match="all images of a batch share one draw"):
        gates.check_runs(centre(name), "cpu", instead(per="batch"), size=SIZE)
    with pytest.raises(GateError, match="draws differ within a batch"):
        gates.check_runs(centre(name, per="batch"), "cpu", instead(per="sample"), size=SIZE)


def test_a_copy_is_a_copy() -> None:
    with pytest.raises(GateError, match="the copy differs"):
        gates.check_runs(centre("rmg"), "cpu", lambda _, batch: lambda: batch.images + 1, size=SIZE, copies=True)
