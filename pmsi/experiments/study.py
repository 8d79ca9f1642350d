"""Trains the runs of the paper's tables and gathers their results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning_fabric import Fabric

from pmsi.data.dataset import Dataset
from pmsi.data.storage import make_store
from pmsi.evaluation.robustness import Robustness, measure_robustness
from pmsi.experiments.folder import (
    LOCK,
    FolderBusyError,
    check_folder,
    lock_folder,
    make_identity,
    open_network,
    read_result,
    write_identity,
)
from pmsi.experiments.run import train_run
from pmsi.experiments.source import Source, describe_data
from pmsi.experiments.tables import Name, name_run, table_recipes
from pmsi.recipe import Recipe
from pmsi.runtime.environment import describe_environment
from pmsi.runtime.files import write_json
from pmsi.runtime.processes import Processes
from pmsi.training.callbacks import Callback


def reproduce(
    names: Sequence[Name],
    source: Source,
    load: Callable[[Recipe], Dataset],
    base: Recipe,
    recipe_name: str,
    *,
    seeds: Sequence[int],
    folder: Path,
    fabric: Fabric,
    watch: Callable[[str, Recipe, Path], Callback],
    compile: bool = False,  # noqa: A002 - torch's name
) -> dict[str, Any]:
    """Train what is missing, and gather what was found.

    Any number of processes may work on one folder: each takes the runs that nobody is at, and waits for the rest.

    Args:
        load: the data set at a recipe's size.
        folder: gets a folder for every run, by `name_run`, and ``results.json``.
        watch: makes the listener of a run from its name, recipe and folder.

    Returns:
        What ``results.json`` holds.

    Raises:
        ValueError: ``folder`` is another experiment's; or "candidates" without images held out to choose by.
        ValueError, OSError: there are no weights for one of the backbones, or they do not fit.
    """
    if "candidates" in names and source.hold_out is None:
        raise ValueError(
            "candidates: settings must not be chosen on test images; hold training images out with --hold-out 3"
        )
    tables = {name: table_recipes(name, base) for name in names}
    for backbone in dict.fromkeys(recipe.backbone for rows in tables.values() for recipe in rows.values()):
        Processes(fabric).take_turns(partial(source.check_weights, backbone))
    dataset = load(base)
    check_folder(folder, source, base, rows=True)
    identity = make_identity(source, dataset, replace(base, augmentation="none"), fabric)
    write_identity(folder, {"experiment": "reproduce", **identity}, fabric)
    left = {
        name_run(recipe, seed): (f"{name} {row}, seed {seed}", recipe, seed)
        for seed in seeds
        for name, rows in tables.items()
        for row, recipe in rows.items()
    }
    while left := {run: what for run, what in left.items() if not (folder / run / "result.json").exists()}:
        busy = []
        for run, (title, recipe, seed) in left.items():
            place_of, listener = folder / run, watch(title, recipe, folder / run)
            how: dict[str, Any] = {"seed": seed, "folder": place_of, "fabric": fabric, "compile": compile}
            try:
                train_run(source, load(recipe), recipe, watch=listener, **how)
            except FolderBusyError:
                busy.append(run)
        if len(busy) == len(left):
            with FileLock(folder / busy[0] / LOCK):  # nothing to do but to wait until somebody is done
                pass
    results = {
        "schema": 1,
        "experiment": "reproduce",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": describe_data(dataset),
        "seeds": list(seeds),
        "weights": identity["weights"],
        "recipe": {"name": recipe_name, **base.to_dict()},
        "environment": describe_environment(fabric),
        "tables": {
            name: {
                row: [read_result(folder / name_run(recipe, seed)) for seed in seeds] for row, recipe in rows.items()
            }
            for name, rows in tables.items()
        },
    }
    if "table7" in names:
        results["robustness"] = {
            row: [_measure(folder / name_run(recipe, seed), recipe, load(recipe), fabric) for seed in seeds]
            for row, recipe in tables["table7"].items()
        }
    if fabric.is_global_zero:
        write_json(folder / "results.json", results)
    return results


def _measure(folder: Path, recipe: Recipe, dataset: Dataset, fabric: Fabric) -> dict[str, dict[str, float]]:
    """Accuracies under each corruption, measured once."""
    path = folder / "robustness.json"
    with lock_folder(folder, fabric, wait=True):
        if not path.exists():
            network = open_network(folder, recipe, len(dataset.classes), fabric)
            found = measure_robustness(network, make_store(dataset.test, fabric.device), recipe, fabric)
            kept = {name: {"concat": one.concat, "mix": one.mix} for name, one in _list_evaluations(found).items()}
            if fabric.is_global_zero:
                write_json(path, kept)
            fabric.barrier()
    read: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
    return read


def _list_evaluations(found: Robustness) -> Mapping[str, Any]:
    return {"clean": found.clean, **found.corrupted}
