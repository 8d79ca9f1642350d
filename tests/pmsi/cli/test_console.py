"""What a terminal shows while a run goes on: one line per epoch, bars that come and go."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from pmsi.cli.console import Screen
from tests.helpers.small_run import RECIPE


def test_every_epoch_is_a_line() -> None:
    console = Console(file=io.StringIO(), width=400)
    speed = {"images_per_second": 99.6, "input_share": 0.051, "memory_gb": 1.25}
    record: dict[str, Any] = {
        "epoch": 2,
        "losses": [1.234, 0.5],
        "concat": 81.26,
        "mix": 82.0,
        "seconds": 61.4,
        "speed": speed,
    }
    with Screen(console) as screen:
        callback = screen.watch("rmg", RECIPE)
        callback.on_batch(1, 3, [1.0])
        assert callback.task is not None
        assert screen.bars.tasks[0].total == 6
        callback.on_batch(2, 3, [])
        assert screen.bars.tasks[0].completed == 2
        callback.on_epoch({**record, "epoch": 1, "speed": {**speed, "memory_gb": None}})  # on Windows
        callback.on_epoch(record)
        assert not screen.bars.tasks  # the last epoch is done
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert "rmg  epoch 2/2  loss 1.23 0.50  Concat 81.3 %  Mix 82.0 %  61 s  100 images/s, 5.1 % of it input" in said


def test_words_in_brackets_are_shown_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=100)
    with Screen(console) as screen:
        screen.say("a [b] /c")
    assert isinstance(console.file, io.StringIO)
    assert "a [b] /c" in console.file.getvalue()


def test_reading_has_a_bar_until_it_is_done() -> None:
    with Screen(Console(file=io.StringIO())) as screen:
        screen.loading("reading", 1, 2)
        assert screen.bars.tasks[0].visible
        screen.loading("reading", 2, 2)
        assert not screen.bars.tasks[0].visible
