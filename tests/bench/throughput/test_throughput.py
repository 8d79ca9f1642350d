"""A side that fails its gate is recorded without times."""

from __future__ import annotations

from typing import Any

import pytest

from bench.results import Row
from bench.throughput import test_throughput
from bench.throughput.cases import centre
from bench.throughput.laws import GateError
from bench.throughput.sides import SIDES


def test_a_side_that_fails_its_gate_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIDES["augment"], "copy", lambda _, batch: lambda: batch.images + 1)
    rows: list[Row] = []
    unused: Any = None
    with pytest.raises(GateError, match="the copy differs"):
        test_throughput.test_throughput(centre("rmg"), "copy", "cpu", unused, rows.append)
    [row] = rows
    assert row["failed"] == "GateError: the copy differs from its source"
    assert "median_ms" not in row
