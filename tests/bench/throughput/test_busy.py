"""The busy benchmark: sides that make the same pixels, turns, rows of a case, and the table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.results import write_results
from bench.throughput import busy
from bench.throughput.batch import Batch, UnfitError
from bench.throughput.cases import Case, centre
from bench.throughput.sides import make_run


@pytest.fixture(autouse=True)
def _no_dali(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import takes seconds."""

    def make(case: Case, side: str, batch: Batch) -> Any:
        if side == "dali":
            raise UnfitError("not here")
        return make_run(case, side, batch)

    monkeypatch.setattr(busy, "make_run", make)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("name", ["mixup", "snapmix", "cutmix"])
def test_all_sides_make_the_same_pixels(name: str, dtype: str) -> None:
    case = centre(name, batch=4, size=16, dtype=dtype)
    sides = busy.make_sides(case)
    busy.check_equal(case, sides)
    sides["ours"] = lambda: torch.zeros(case.shape, dtype=case.torch_dtype)
    with pytest.raises(AssertionError, match="ours makes other pixels"):
        busy.check_equal(case, sides)


def test_every_batch_has_its_turn() -> None:
    calls: list[int] = []
    run = busy.take_turns([lambda: calls.append(0), lambda: calls.append(1), lambda: calls.append(2)])
    for _ in range(4):
        run()
    assert calls == [0, 1, 2, 0]
    sides = busy.make_sides(centre("rmg", level=1, batch=4, size=16))
    made = [sides["ready"]() for _ in range(busy.SETS + 1)]
    assert len({image.data_ptr() for image in made}) == busy.SETS
    assert made[0] is made[-1]


def test_plain_code_that_differs_is_not_timed() -> None:
    case = centre("mixup", batch=4, size=16)
    sides = busy.make_sides(case)
    plain = sides["plain"]
    sides["plain"] = lambda: plain() + 1
    with pytest.raises(AssertionError, match="plain code differs by 1"):
        busy.check_equal(case, sides)


def test_a_case_becomes_rows_and_a_line_of_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(busy, "ROUNDS", {"idle": 1, "busy": 1})
    monkeypatch.setattr(busy, "SECONDS", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 0)  # no loops
    assert busy.render(tmp_path) == "Not measured yet.\n"
    rows = busy.measure(centre("mixup", batch=2, size=16))
    assert len(rows) == 2 * len({row["side"] for row in rows})
    write_results(tmp_path / "busy-cpu.json", {"device": "a CPU", "threads": 2, "commit": "c"}, rows)
    *_, line = busy.render(tmp_path).splitlines()
    assert line.startswith("| MixUp | float32 | 16 |")
    assert line.count("|") == 14
    assert line.endswith("| - |")
    write_results(tmp_path / "busy-other.json", {"device": "another", "threads": 4, "commit": "d"}, rows)
    text = busy.render(tmp_path)
    assert text.count("| MixUp | float32 | 16 |") == 2
    assert text.index("**CPU**: a CPU, 2 threads; commit c.") < text.index("**CPU**: another, 4 threads; commit d.")


def test_the_cases_are_three_sizes_and_the_pipelines() -> None:
    cases = busy.list_cases()
    assert {case.size for case in cases} == {32, 224, 448}
    assert sum(case.task == "pipeline" for case in cases) == 3
