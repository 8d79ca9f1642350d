"""Terminal (rich): progress bars, one line per epoch, tables, and the last line for scripts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from pmsi.recipe import Recipe
from pmsi.runtime.files import escape


class Screen:
    """Live bars while a run goes on, and one line for every finished epoch."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Pace(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
        )
        self.bars = Progress(*columns, console=console, transient=True, disable=console.quiet)
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def say(self, line: str) -> None:
        """A line above the bars."""
        self.bars.console.print(escape(line), markup=False, highlight=False, soft_wrap=True)

    def loading(self, what: str, done: int, total: int) -> None:
        """Images are being read."""
        if what not in self.tasks:
            self.tasks[what] = self.bars.add_task(what, total=total, images=1, losses="")
        self.bars.update(self.tasks[what], completed=done, visible=done < total)

    def watch(self, name: str, recipe: Recipe) -> ConsoleCallback:
        """A listener for one run."""
        return ConsoleCallback(self, name, recipe)


class ConsoleCallback:
    """Lines and bar of one run on a `Screen`: images a second, time left in all epochs, losses per phase."""

    def __init__(self, screen: Screen, name: str, recipe: Recipe) -> None:
        self.screen, self.name, self.recipe = screen, name, recipe
        self.task: TaskID | None = None
        self.epochs = 0  # that are done

    def on_batch(self, done: int, total: int, losses: Sequence[float]) -> None:
        bars = self.screen.bars
        so_far = self.epochs * total + done
        if self.task is None:
            whole, images = self.recipe.epochs * total, self.recipe.batch_size
            self.task = bars.add_task(self.name, total=whole, completed=so_far, images=images, losses="")
        bars.update(self.task, completed=so_far)
        if losses:
            bars.update(self.task, losses="loss " + " ".join(f"{loss:.2f}" for loss in losses))

    def on_epoch(self, record: dict[str, Any]) -> None:
        self.epochs = record["epoch"]
        if record["mix"] is None:
            return
        losses = " ".join(f"{loss:.2f}" for loss in record["losses"])
        speed = record["speed"]
        memory = "" if speed["memory_gb"] is None else f", {speed['memory_gb']:.1f} GB"
        self.screen.say(
            f"{self.name}  epoch {record['epoch']}/{self.recipe.epochs}  loss {losses}  "
            f"Concat {record['concat']:.1f} %  Mix {record['mix']:.1f} %  {record['seconds']:.0f} s  "
            f"{speed['images_per_second']:.0f} images/s, {100 * speed['input_share']:.1f} % of it input"
            f"{memory}"
        )
        if self.task is not None and record["epoch"] == self.recipe.epochs:
            self.screen.bars.remove_task(self.task)


class _Pace(TextColumn):
    """Images a second."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Any) -> Text:
        return Text("" if task.speed is None else f"{task.speed * task.fields['images']:.0f} images/s")


def print_whole(table: Table, console: Console) -> None:
    """Print at the table's own width: a terminal may break its lines, but no figure is cut short."""
    width, needed = console.width, Console(width=1000).measure(table).maximum
    console.width = max(width, needed)
    console.print(table)
    console.width = width


def say(console: Console, line: str) -> None:
    """Print text as it is, without markup or colours."""
    console.print(escape(line), markup=False, highlight=False, soft_wrap=True)


def end(console: Console, values: dict[str, Any]) -> None:
    """Print the last line of a command, for scripts: JSON."""
    say(console, json.dumps(values))
