"""A side that fails its gate is recorded without times."""

from __future__ import annotations

import pytest

from bench.results import Row
from bench.throughput.laws import GateError
from bench.training import test_training


def test_what_fails_has_no_time() -> None:
    rows: list[Row] = []
    with pytest.raises(GateError), test_training._record_failure("step", 96, rows.append):
        raise GateError("the losses differ")
    assert rows == [{"task": "step", "size": 96, "failed": "GateError: the losses differ"}]
