"""Rows of throughput results: a case, a side, and its times."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from bench.results import Row, round_figure
from bench.throughput.cases import Case


def make_row(case: Case, side: str, **found: Any) -> Row:
    """Row of a case and a side: its times, or the reason why it has none (``skipped``, ``failed``)."""
    return {**dataclasses.asdict(case), "side": side, **found}


def index_rows(rows: Sequence[Row]) -> dict[tuple[Case, str], Row]:
    """Rows by case and side."""
    return {(read_case(row), row["side"]): row for row in rows}


def read_case(row: Row) -> Case:
    """Case of a row; what the row does not say is as in the centre."""
    return Case(**{field.name: row[field.name] for field in dataclasses.fields(Case) if field.name in row})


def make_times(case: Case, *, median: float, q1: float, q3: float, rounds: int) -> dict[str, Any]:
    """Fields of a row from times in seconds."""
    return {
        "median_ms": round_figure(median * 1e3),
        "q1_ms": round_figure(q1 * 1e3),
        "q3_ms": round_figure(q3 * 1e3),
        "rounds": rounds,
        "bytes": case.bytes,
        "gb_per_s": None if case.bytes is None else round_figure(case.bytes / median / 1e9),
        "images_per_s": round_figure(case.batch / median),
    }


def compare_with_copies(rows: Sequence[Row]) -> list[Row]:
    """Rows with ``ratio_to_copy``: time over that of the case's copy, None where the copy has no time."""
    copies = {
        case: row["median_ms"] for (case, side), row in index_rows(rows).items() if side == "copy" and has_times(row)
    }
    compared = []
    for (case, _), row in index_rows(rows).items():
        ratio = round_figure(row["median_ms"] / copies[case]) if has_times(row) and case in copies else None
        compared.append({**row, "ratio_to_copy": ratio} if has_times(row) else row)
    return compared


def has_times(row: Row | None) -> bool:
    """Test for a row with times: None, skipped and failed rows have none."""
    return row is not None and "median_ms" in row
