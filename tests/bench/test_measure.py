"""Rounds fit the time of a call, and the peak is the memory held beside input and output."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench import measure


@pytest.mark.parametrize(
    ("seconds", "want"), [(1e-5, (50, 100, 3)), (0.02, (20, 1, 3)), (0.2, (7, 1, 0)), (2.0, (3, 1, 0))]
)
def test_rounds_fit_the_time_of_a_call(seconds: float, want: tuple[int, int, int]) -> None:
    now = 0.0

    def run() -> None:
        nonlocal now
        now += seconds

    assert tuple(measure.plan_rounds(run, lambda: now)) == want


def test_the_peak_is_what_a_call_holds_beside_its_output() -> None:
    images = torch.rand(256, 1024)  # 1 MiB

    def run() -> Tensor:
        parts = [images + 1, images + 2, images + 3]
        return parts[0] * 2

    assert measure.measure_peak(run, "cpu", fresh=True) / 2**20 == pytest.approx(3, abs=0.01)
    assert measure.measure_peak(run, "cpu", fresh=False) / 2**20 == pytest.approx(4, abs=0.01)
    assert measure.measure_peak(lambda: images, "cpu", fresh=False) == 0
