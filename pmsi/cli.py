"""The `pmsi` command: compare, train, evaluate, data."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from lightning.fabric import Fabric
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

from pmsi.cli_data import Data, run_data
from pmsi.config import METHODS, RECIPES, Method, Recipe, RecipeName
from pmsi.data import DataName, Split
from pmsi.evaluate import evaluate
from pmsi.experiments import Source, check_folder, compare, run_once
from pmsi.files import load_checkpoint
from pmsi.progress import Stopped
from pmsi.report import rich_table
from pmsi.train import make_network

_Flat = tyro.conf.arg(name="")
_Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Common:
    """What every training command takes."""

    source: Annotated[Source, _Flat] = field(default_factory=Source)
    recipe: RecipeName | None = None
    """Where the defaults of the training settings come from; by default "demo" for typefaces, else "quick"."""
    settings: Annotated[Recipe, _Flat] = field(default_factory=Recipe)
    run: Path | None = None
    """Folder of the run; by default runs/COMMAND-DATA-RECIPE. The same command continues what is there."""
    device: _Device = "auto"
    """Where to compute."""


@dataclass(frozen=True)
class Compare(Common):
    """Train the rows of Table IV (augmentations) under one recipe, and write a table and a report."""

    methods: tuple[Method, ...] = METHODS
    """Rows to train."""
    seeds: tuple[int, ...] = (0,)
    """One run of every row for each; more can be added later."""


@dataclass(frozen=True)
class Train(Common):
    """Train one network."""

    seed: int = 0
    """Of initial weights, order, crops, augmentation and dropout."""


@dataclass(frozen=True)
class Evaluate:
    """Test a checkpoint: Concat, Mix and every stage."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """last.ckpt of a run."""
    data: DataName | None = None
    """Data set; by default the one it was trained on."""
    root: Path | None = None
    """Folder of the data set; by default where it was in training."""
    cache: Path | None = None
    """Folder that keeps decoded images, as in training."""
    device: _Device = "auto"
    """Where to compute."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 if a data set that was checked has something wrong with it, 2
    for an error in what was asked, 130 or 143 when stopped."""
    console = Console()
    try:
        command = _parse(sys.argv[1:] if arguments is None else arguments)
        if isinstance(command, Compare):
            _compare(command, console)
        elif isinstance(command, Train):
            _train(command, console)
        elif isinstance(command, Data):
            with _Progress(console) as progress:
                return run_data(command, console, progress.loading)
        else:
            _evaluate(command, console)
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"pmsi: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except Stopped as stopped:
        console.print("\nStopped. All that was done is saved; the same command goes on from there.")
        return 128 + stopped.signal
    except KeyboardInterrupt:
        console.print("\nStopped. What was saved before stays; the same command goes on from there.")
        return 130
    return 0


def _parse(words: list[str]) -> Compare | Train | Evaluate | Data:
    """Two steps, because the recipe that is named gives the other settings their defaults."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--data", default="typefaces")
    first.add_argument("--recipe")
    known, _ = first.parse_known_args(words)
    name = known.recipe or ("demo" if known.data == "typefaces" else "quick")
    settings = next(
        (recipe for key, recipe in RECIPES.items() if key == name), Recipe()
    )  # tyro reports a name that is not there
    commands = (
        Annotated[Compare, tyro.conf.subcommand("compare", default=Compare(settings=settings))]
        | Annotated[Train, tyro.conf.subcommand("train", default=Train(settings=settings))]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Data, tyro.conf.subcommand("data")]
    )
    summary = "RMG-PMSI: train and compare networks for fine-grained recognition."
    return tyro.cli(commands, prog="pmsi", description=summary, args=words)


def _compare(command: Compare, console: Console) -> None:
    if not command.methods:
        raise ValueError("--methods: name one row or more")
    if not command.seeds or min(command.seeds) < 0:
        raise ValueError(f"--seeds: give one number or more, each 0 or above, got {list(command.seeds)}")
    recipe, name = command.settings, _recipe_name(command)
    folder = command.run or Path("runs") / f"compare-{command.source.data}-{name}"
    check_folder(folder, command.source, recipe, rows=True)
    fabric = _fabric(command.device)
    with _Progress(console) as progress:
        dataset = command.source.load(recipe, progress.loading)
        console.print(dataset.protocol, markup=False, highlight=False)
        results = compare(
            command.source,
            dataset,
            recipe,
            name,
            methods=command.methods,
            seeds=command.seeds,
            folder=folder,
            fabric=fabric,
            watch=lambda method, seed, chosen: progress.watch(f"{method}, seed {seed}", chosen.epochs),
        )
    console.print(rich_table(results))
    console.print(f"Report: {(folder / 'report.html').resolve()}", markup=False, highlight=False, soft_wrap=True)


def _train(command: Train, console: Console) -> None:
    if command.seed < 0:
        raise ValueError(f"--seed: must be 0 or above, got {command.seed}")
    recipe, name = command.settings, _recipe_name(command)
    default = Path("runs") / f"train-{command.source.data}-{name}-{recipe.augmentation}-seed{command.seed}"
    folder = command.run or default
    check_folder(folder, command.source, recipe, rows=False)
    fabric = _fabric(command.device)
    with _Progress(console) as progress:
        dataset = command.source.load(recipe, progress.loading)
        console.print(dataset.protocol, markup=False, highlight=False)
        result = run_once(
            command.source,
            dataset,
            recipe,
            seed=command.seed,
            folder=folder,
            fabric=fabric,
            watch=progress.watch(recipe.augmentation, recipe.epochs),
        )
    console.print(
        f"Concat {result['concat']:.1f} %, Mix {result['mix']:.1f} % of {len(dataset.test.labels)} test images"
    )
    console.print(f"Checkpoint: {(folder / 'last.ckpt').resolve()}", markup=False, highlight=False, soft_wrap=True)


def _evaluate(command: Evaluate, console: Console) -> None:
    state, fabric = load_checkpoint(command.checkpoint), _fabric(command.device)
    identity = state["identity"]
    recipe = Recipe(**{name[7:]: value for name, value in identity.items() if name.startswith("recipe.")})
    source = Source(
        data=command.data or identity["data"],
        root=command.root or (Path(identity["root"]) if identity["root"] else None),
        skip_unreadable=identity["skip_unreadable"],
        cache=command.cache,
    )
    with _Progress(console) as progress:
        dataset = source.load(recipe, progress.loading)
    if len(dataset.classes) != identity["classes"]:
        raise ValueError(
            f"{command.checkpoint} knows {identity['classes']} classes, {source.data} has {len(dataset.classes)}"
        )
    network = make_network(recipe, identity["classes"])
    network.load_state_dict(state["model"])
    test = Split(fabric.to_device(dataset.test.images), fabric.to_device(dataset.test.labels))
    found = evaluate(fabric.to_device(network), test, recipe)
    for k, accuracy in enumerate(found.stages, 6 - recipe.stages):
        console.print(f"Stage {k}  {accuracy:.2f} %")
    console.print(f"Concat   {found.concat:.2f} %\nMix      {found.mix:.2f} % of {len(test.labels)} test images")


def _recipe_name(command: Common) -> str:
    name: RecipeName = command.recipe or ("demo" if command.source.data == "typefaces" else "quick")
    return name if command.settings == RECIPES[name] else f"{name}-changed"


def _fabric(device: _Device) -> Fabric:
    try:
        fabric = Fabric(accelerator="gpu" if device == "cuda" else device, devices=1)
    except RuntimeError as error:
        raise ValueError(f"--device {device}: this machine cannot offer it ({error})") from error
    fabric.launch()
    return fabric


class _Progress:
    """Live bars while a run goes on, and one line for every finished epoch."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.bars = Progress(*columns, console=console, transient=True)
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Progress:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def loading(self, what: str, done: int, total: int) -> None:
        """Images are being read."""
        if what not in self.tasks:
            self.tasks[what] = self.bars.add_task(what, total=total)
        self.bars.update(self.tasks[what], completed=done, visible=done < total)

    def watch(self, name: str, epochs: int) -> _RunWatch:
        """A listener for one run."""
        return _RunWatch(self.bars, name, epochs)


class _RunWatch:
    def __init__(self, bars: Progress, name: str, epochs: int) -> None:
        self.bars, self.name, self.epochs = bars, name, epochs
        self.task: TaskID | None = None

    def batch(self, done: int, total: int) -> None:
        if self.task is None:
            self.task = self.bars.add_task(self.name, total=total)
        elif done == 1:  # the time that is left is told from this epoch's own pace
            self.bars.reset(self.task)
        self.bars.update(self.task, completed=done, total=total)

    def epoch(self, record: dict[str, Any]) -> None:
        losses = " ".join(f"{loss:.2f}" for loss in record["losses"])
        self.bars.console.print(
            f"{self.name}  epoch {record['epoch']}/{self.epochs}  loss {losses}  "
            f"Concat {record['concat']:.1f} %  Mix {record['mix']:.1f} %  {record['seconds']:.0f} s",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        if self.task is not None and record["epoch"] == self.epochs:
            self.bars.remove_task(self.task)
