"""Tables of docs/trust.md: every hostile input is a row, and results that are not there are no claim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import trust_tables
from tests.hostile.table import TABLE


def write(folder: Path, name: str, **values: Any) -> None:
    (folder / name).write_text(json.dumps({"device": "a CPU", **values}))


def test_every_hostile_input_is_a_row() -> None:
    cases = [case for cases in TABLE.values() for case in cases]
    page = trust_tables.render_hostile()
    assert page.startswith(f"{len(cases)} inputs: ")
    assert page.count("\n| ") == len(cases) + 2 * len(TABLE)
    assert len({case.what for case in cases}) == len(cases), "each is named once"


def test_without_results_nothing_is_said(tmp_path: Path) -> None:
    renderers = (trust_tables.render_fuzz, trust_tables.render_soak, trust_tables.render_mutation)
    assert [render(tmp_path) for render in (*renderers, trust_tables.render_launches)] == [""] * 4
    assert trust_tables.render_versions(tmp_path / "matrix.json") == ""


def test_counts_of_several_devices_are_added(tmp_path: Path) -> None:
    row = {"format": "plan", "read": 1, "refused": 1999}
    write(tmp_path, "trust-fuzz.json", minutes=2, inputs=2001, failures=1, rows=[row])
    page = trust_tables.render_fuzz(tmp_path)
    assert "2,001 files in 2 minutes" in page
    assert "1 crashes" in page
    assert "| plan | 2,000 | 1,999 | 1 |" in page
    rows = [{"kind": "backend", "name": "cpu", "plans": 600_000, "calls": 3}, {"kind": "large", "name": "x"}]
    for name, batch in (("soak-cpu.json", 64), ("soak-h100.json", 4096)):
        largest = {"elements": 2**31 + 1, "batch": batch}
        write(tmp_path, name, minutes=1.5, failures=[], largest=largest, rows=rows)
    page = trust_tables.render_soak(tmp_path)
    assert "3 minutes of random cases on a CPU: no failures." in page
    assert "2,147,483,649 elements, the largest batch 4,096" in page
    assert "| cpu | 1,200,000 |" in page


def test_executed_launches_of_several_runs_are_added(tmp_path: Path) -> None:
    for number in (1, 2):
        rows = [{"fact": "VEC 4", "launches": 5000}, {"fact": "VEC 1", "launches": 200}]
        write(tmp_path, f"trust-launches-{number}.json", launches=5200, kernels=300, failures=0, rows=rows)
    page = trust_tables.render_launches(tmp_path)
    assert "10,400 random launches of 600 kernels" in page
    assert "no wrong bits" in page
    assert "| VEC 4 | 10,000 |" in page


def test_mutants_are_counted_by_module(tmp_path: Path) -> None:
    rows = [
        {"module": "mosaicaug/plan.py", "mutants": 90, "killed": 85, "explained": 4},
        {"module": "pmsi/data/cache.py", "mutants": 10, "killed": 10},
    ]
    write(tmp_path, "mutation.json", rows=rows)
    page = trust_tables.render_mutation(tmp_path)
    assert "100 small faults were planted, one at a time; the tests catch 95 of them (95.0 %), 4 that" in page
    assert "explained.txt`, and 1 are not." in page
    assert "| mosaicaug | 90 | 85 | 94.4 % | 4 |\n| pmsi | 10 | 10 | 100.0 % | 0 |\n" in page
    assert "| mosaicaug/plan.py | 90 | 85 | 94.4 % | 4 |" in page
    assert "sample" not in page


def test_a_sample_of_mutants_has_an_interval(tmp_path: Path) -> None:
    row = {"module": "mosaicaug/plan.py", "possible": 238, "mutants": 60, "killed": 57, "explained": 3}
    write(tmp_path, "mutation.json", rows=[row])
    page = trust_tables.render_mutation(tmp_path)
    assert "and none are not. They are a random sample of 238 possible ones" in page
    assert "| mosaicaug/plan.py | 60 | 57 | 95.0 % [86, 98] | 3 |" in page


@pytest.mark.parametrize("text", ["a | b", "<script>"])
def test_texts_are_cells(text: str) -> None:
    (line,) = trust_tables._draw(("one",), [(text,)])[2:]
    assert line in ("| a \\| b |", "| &lt;script> |")
