"""Callbacks of a run: the console's lines and bars."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pmsi.cli.console import Screen
from tests.helpers.small_run import RECIPE, make_trainer


@pytest.mark.usefixtures("small_backbone")
def test_speed_is_measured_and_told(tmp_path: Path) -> None:
    out = StringIO()
    with Screen(Console(file=out, width=200)) as screen:
        trainer = make_trainer(tmp_path)
        trainer.run(screen.watch("mine", RECIPE))
    lines = [line for line in out.getvalue().splitlines() if line.strip()]
    assert len(lines) == 2
    for line, record in zip(lines, trainer.history, strict=True):
        speed = record["speed"]
        assert speed["images"] == "cpu"
        assert 0 < speed["input_share"] < 1
        assert speed["images_per_second"] == pytest.approx(12 / record["seconds"], rel=0.5)
        assert 0.1 < speed["memory_gb"] < 64
        assert f"{100 * speed['input_share']:.1f} % of it input" in line
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[1]) == trainer.history[1]


@pytest.mark.usefixtures("small_backbone")
def test_bars_show_the_whole_run(tmp_path: Path) -> None:
    screen = Screen(Console(file=StringIO(), width=200))
    watch = screen.watch("mine", RECIPE)
    seen: list[tuple[float, float | None, str]] = []
    batch = watch.on_batch

    def listen(done: int, total: int, losses: Sequence[float]) -> None:
        batch(done, total, losses)
        (task,) = screen.bars.tasks
        seen.append((task.completed, task.total, task.fields["losses"]))

    watch.on_batch = listen  # type: ignore[method-assign]
    make_trainer(tmp_path).run(watch)
    assert [(done, total) for done, total, _ in seen] == [(k, 6) for k in range(1, 7)]
    assert all(text.startswith("loss ") and len(text.split()) == 5 for *_, text in seen)
