"""The `pmsi` command: compare, train, evaluate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pmsi.config import METHODS, RECIPES, Method, Recipe, RecipeName
from pmsi.experiments import Source

_Flat = tyro.conf.arg(name="")


@dataclass(frozen=True)
class Common:
    """What every training command takes."""

    source: Annotated[Source, _Flat] = field(default_factory=Source)
    recipe: RecipeName | None = None
    """Where the defaults of the training settings come from; by default "demo" for typefaces, else "quick"."""
    settings: Annotated[Recipe, _Flat] = field(default_factory=Recipe)
    run: Path | None = None
    """Folder of the run; by default runs/COMMAND-DATA-RECIPE. The same command continues what is there."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
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
    data: Literal["typefaces", "cub", "folder"] | None = None
    """Data set; by default the one it was trained on."""
    root: Path | None = None
    """Folder of the data set; by default where it was in training."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    console = Console()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        command = _parse(words)
        return _COMMANDS[type(command)](command, console)
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"pmsi: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("\nStopped. What is finished is saved; the same command goes on from there.")
        return 130
