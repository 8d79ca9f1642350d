"""Who watches a run: bars and lines on a screen, curves in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

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
from rich.text import Text

from pmsi.config import Recipe


class Watch(Protocol):
    """Who is told how far a run is."""

    def batch(self, done: int, total: int, losses: Sequence[float]) -> None:
        """``done`` of ``total`` mini-batches are trained, with these mean losses (none: they are not here yet)."""

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch is trained, tested and saved."""


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
        self.bars.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def loading(self, what: str, done: int, total: int) -> None:
        """Images are being read."""
        if what not in self.tasks:
            self.tasks[what] = self.bars.add_task(what, total=total, images=1, losses="")
        self.bars.update(self.tasks[what], completed=done, visible=done < total)

    def watch(self, name: str, recipe: Recipe) -> RunScreen:
        """A listener for one run."""
        return RunScreen(self, name, recipe)


class RunScreen:
    """One run on a `Screen`: images a second, time left in all epochs, losses per phase."""

    def __init__(self, screen: Screen, name: str, recipe: Recipe) -> None:
        self.screen, self.name, self.recipe = screen, name, recipe
        self.task: TaskID | None = None
        self.epochs = 0  # that are done

    def batch(self, done: int, total: int, losses: Sequence[float]) -> None:
        bars = self.screen.bars
        so_far = self.epochs * total + done
        if self.task is None:
            whole, images = self.recipe.epochs * total, self.recipe.batch_size
            self.task = bars.add_task(self.name, total=whole, completed=so_far, images=images, losses="")
        bars.update(self.task, completed=so_far)
        if losses:
            bars.update(self.task, losses="loss " + " ".join(f"{loss:.2f}" for loss in losses))

    def epoch(self, record: dict[str, Any]) -> None:
        self.epochs = record["epoch"]
        losses = " ".join(f"{loss:.2f}" for loss in record["losses"])
        speed = record["speed"]
        self.screen.say(
            f"{self.name}  epoch {record['epoch']}/{self.recipe.epochs}  loss {losses}  "
            f"Concat {record['concat']:.1f} %  Mix {record['mix']:.1f} %  {record['seconds']:.0f} s  "
            f"{speed['images_per_second']:.0f} images/s, {100 * speed['input_share']:.1f} % of it input,"
            f" {speed['memory_gb']:.1f} GB"
        )
        if self.task is not None and record["epoch"] == self.recipe.epochs:
            self.screen.bars.remove_task(self.task)


class TensorBoard:
    """Scalars of every epoch in ``folder``; a run that goes on from an earlier epoch writes over what came after it.

    Args:
        watch: told as well.

    Raises:
        ImportError: the package tensorboard is missing.
    """

    def __init__(self, folder: Path, watch: Watch) -> None:
        from torch.utils.tensorboard import SummaryWriter  # an extra

        self.open: Any = SummaryWriter
        self.folder, self.watch = folder, watch
        self.writer: Any = None

    def batch(self, done: int, total: int, losses: Sequence[float]) -> None:
        self.watch.batch(done, total, losses)

    def epoch(self, record: dict[str, Any]) -> None:
        self.watch.epoch(record)
        epoch = record["epoch"]
        if self.writer is None:
            self.writer = self.open(str(self.folder), purge_step=epoch)
        curves = {"accuracy/concat": record["concat"], "accuracy/mix": record["mix"]}
        curves |= {f"accuracy/stage {k}": one for k, one in enumerate(record["stages"], 6 - len(record["stages"]))}
        curves |= {f"loss/phase {k}": one for k, one in enumerate(record["losses"], 1)}
        curves |= {f"speed/{name}": value for name, value in record["speed"].items() if isinstance(value, float)}
        curves |= {f"rate/group {k}": rate for k, rate in enumerate(record["lr"], 1)}
        for name, value in curves.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()


class _Pace(TextColumn):
    """Images a second."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Any) -> Text:
        return Text("" if task.speed is None else f"{task.speed * task.fields['images']:.0f} images/s")
