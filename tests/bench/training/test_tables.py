"""Tables of training: ratios, hours, failures, and what was not measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import pages
from bench.results import Row, write_results
from bench.training import tables
from tests.helpers.bench_results import make_environment, make_training_rows


def write_fake(folder: Path, name: str, device_type: str, rows: list[Row]) -> None:
    extra = {"engine": rows} if name.startswith("gpu-check") else {}
    write_results(folder / f"{name}.json", make_environment(device_type) | extra, [] if extra else rows)


@pytest.mark.parametrize("name", ["engine-fast-one", "gpu-check-fast-one"])
def test_tables_show_ratios_and_hours(tmp_path: Path, name: str) -> None:
    write_fake(tmp_path, name, "cuda", list(make_training_rows()))
    text = tables.render(tmp_path)
    assert text.startswith("**CPU**: not measured.\n\n**GPU**: Fast One, 2 CPU threads")
    assert "| 448 px, batches of 32 | 850 | 100 | 8.5 | 425 | 50 |" in text
    assert "| published loop, fp32, 448 px, batches of 32 | 50 | 1.00 | - | 2,000 | 5.0 |" in text
    assert "| ours, bf16, compiled, 448 px, batches of 32 | 250 | 5.00 | 1.2 | 2,000 | 1.0 |" in text


def test_tables_say_what_failed_and_what_was_not_measured(tmp_path: Path) -> None:
    assert tables.render(tmp_path) == "**CPU**: not measured.\n\n**GPU**: not measured.\n"
    write_fake(tmp_path, "engine-cpu", "cpu", [{"task": "step", "size": 96, "failed": "GateError: no"}])
    assert "step at 96 px failed: GateError: no" in tables.render(tmp_path)
    assert "engine" in pages.PAGES["docs/benchmarks.md"]
