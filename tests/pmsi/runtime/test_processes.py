"""Shares of a batch, and turns; how several processes agree is tried under torchrun in tests/pmsi/training."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from pmsi.runtime.processes import Processes, process_rank
from tests.helpers.small_run import make_fabric


class FakeFabric:
    """One process of several, as far as shares ask for it."""

    def __init__(self, rank: int, count: int) -> None:
        self.global_rank, self.world_size, self.local_rank = rank, count, rank


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
@pytest.mark.parametrize("number", [1, 3, 8])
def test_shares_cover_every_row_once_and_differ_by_one_at_most(count: int, number: int) -> None:
    shares = [Processes(cast(Any, FakeFabric(rank, number))).split(count) for rank in range(number)]
    rows = [list(range(count)[share]) for share in shares]
    assert sum(rows, []) == list(range(count))  # noqa: RUF017 - a few short lists
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_one_process_talks_to_nobody() -> None:
    alone, values = Processes(make_fabric()), torch.arange(3)
    assert alone.max_over_processes(5) == 5
    assert alone.gather(values) is values
    assert torch.equal(alone.sum(values), values)
    alone.check_same({"a": 1})
    alone.copy_first([values])
    assert alone.take_turns(lambda: "done") == "done"


def test_what_fails_in_a_turn_is_raised() -> None:
    def fail() -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        Processes(make_fabric()).take_turns(fail)


def test_torchrun_numbers_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert process_rank() == 0
    monkeypatch.setenv("RANK", "3")
    assert process_rank() == 3
