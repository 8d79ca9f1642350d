"""Rows hold times, and the ratio to the copy of their case."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.throughput import tables
from bench.throughput.cases import centre, list_pairs
from bench.throughput.rows import index_rows


def test_rows_hold_what_was_measured(throughput_folder: Path) -> None:
    loaded = tables.load("cpu", throughput_folder)
    assert loaded is not None
    rows = index_rows(loaded["rows"])
    assert len(rows) == len(list_pairs("cpu"))
    row = rows[centre("rmg", dtype="uint8"), "ours"]
    assert (row["median_ms"], row["rounds"], row["ratio_to_copy"]) == (20.0, 5, 2.0)
    assert row["gb_per_s"] == pytest.approx(32 * 3 * 448**2 * 2 / 0.02 / 1e9, rel=1e-3)
    assert row["images_per_s"] == 1600
    assert rows[centre("rmg", task="draw"), "ours"]["ratio_to_copy"] is None
    assert "ratio_to_copy" not in rows[centre("rmg", per="batch"), "loop"]
