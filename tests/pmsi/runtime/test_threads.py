"""Threads of torch: set as asked for, or advised by a measurement that changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from pmsi.runtime import threads
from pmsi.runtime.threads import measure_speeds, set_threads


def advise(monkeypatch: pytest.MonkeyPatch, now: int, speeds: dict[int, float], cores: int = 64) -> str | None:
    """Advice on a machine where torch has ``now`` threads, and each number of them the given speed."""

    def measure(counts: Sequence[int]) -> dict[int, float]:
        return {count: speeds[count] for count in counts}

    monkeypatch.setattr(torch, "get_num_threads", lambda: now)
    monkeypatch.setattr(threads, "measure_speeds", measure)
    monkeypatch.setattr(threads, "count_workers", lambda: cores)
    return set_threads(None)


def test_fewer_threads_are_named_where_they_are_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    assert advise(monkeypatch, 2, {1: 200.0, 2: 40.0}) == (
        "this machine is busy, or allows fewer cores than it has: torch computes 5.0 times as fast with 1 thread as"
        " with its 2; --threads 1 sets that"
    )
    many = advise(monkeypatch, 8, {1: 10.0, 2: 30.0, 4: 20.0, 8: 15.0})
    assert many is not None
    assert "2.0 times as fast with 2 threads as with its 8; --threads 2 sets" in many
    allowed = advise(monkeypatch, 32, {1: 10.0, 3: 30.0, 32: 1.0}, cores=3)  # in a container
    assert allowed is not None
    assert "--threads 3" in allowed


def test_nothing_is_said_where_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    assert advise(monkeypatch, 2, {1: 100.0, 2: 180.0}) is None
    assert advise(monkeypatch, 2, {1: 110.0, 2: 100.0}) is None  # within what a measurement varies by
    assert advise(monkeypatch, 1, {}) is None


def test_a_measurement_changes_nothing() -> None:
    threads_before, state = torch.get_num_threads(), torch.get_rng_state()
    speeds = measure_speeds([1, 2])
    assert speeds.keys() == {1, 2}
    assert min(speeds.values()) > 0
    assert torch.get_num_threads() == threads_before
    assert torch.equal(torch.get_rng_state(), state)


def test_threads_are_set_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    assert set_threads(3) is None
    assert set_to == [3]
    with pytest.raises(ValueError, match="--threads: must be 1 or above, got 0"):
        set_threads(0)
