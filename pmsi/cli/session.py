"""Session of a command: device, precision and threads as they were asked for, and its data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from pmsi.cli.console import Screen, say
from pmsi.cli.options import ComputeOptions
from pmsi.data.dataset import Dataset
from pmsi.experiments.source import Source
from pmsi.recipe import Recipe
from pmsi.runtime.devices import open_fabric
from pmsi.runtime.session import Session
from pmsi.runtime.threads import set_threads


def open_session(command: Any, compute: ComputeOptions, console: Console) -> Session:
    """Open the launched Fabric of a command (a dataclass); all processes were given the same one."""
    session = Session(open_fabric(compute.device, compute.precision), compute.compile, compute.graphs)
    session.processes.check_same(name_settings(asdict(command)))
    if session.fabric.device.type == "cpu" and (advice := set_threads(compute.threads)) is not None:
        say(console, advice)
    return session


def load_data(
    source: Source, recipe: Recipe, session: Session, screen: Screen, classes: Sequence[str] | None = None
) -> Dataset:
    """Load a data set: the first process of each host reads the images, the others find them in the cache."""
    return session.processes.take_turns(lambda: source.load(recipe, screen.loading, screen.say, classes))


def name_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Settings by name as they are typed, from nested ones."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= name_settings(value) if isinstance(value, dict) else {f"--{name.replace('_', '-')}": value}
    return flat
