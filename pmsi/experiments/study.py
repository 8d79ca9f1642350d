"""Engine of all studies: trains the runs of the paper's tables and figure, and gathers their results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from pmsi.data.dataset import Dataset
from pmsi.experiments.folder import (
    LOCK,
    FolderBusyError,
    check_folder,
    locate_run,
    lock_folder,
    make_identity,
    open_network,
    write_identity,
)
from pmsi.experiments.measurement import keep_robustness
from pmsi.experiments.pictures import keep_activations, keep_preview
from pmsi.experiments.results import describe_study, gather_results, list_finished, list_records, read_results
from pmsi.experiments.run import train_run
from pmsi.experiments.tables import CHOOSING, COSTED, Grid, Name, Row, table_rows
from pmsi.models.cost import measure_cost
from pmsi.models.registry import make_network
from pmsi.recipe import METHODS, Method, Recipe
from pmsi.runtime.files import expand_home, write_json, write_lines
from pmsi.runtime.session import Session
from pmsi.training.batches import count_batches
from pmsi.training.callbacks import Callback
from pmsi.training.phases import needs_maps


def study(
    tables: Sequence[Name],
    base: Row,
    load: Callable[[Row], Dataset],
    recipe_name: str,
    *,
    methods: Sequence[Method] = METHODS,
    grid: Grid | None = None,
    seeds: Sequence[int] = (0,),
    folder: Path,
    session: Session,
    watch: Callable[[str, Recipe, Path], Callback],
    on_results: Callable[[dict[str, Any]], object] = lambda _: None,
) -> dict[str, Any]:
    """Train the runs of ``tables`` that are missing, and gather what was found.

    Runs that are finished are kept, one that was stopped goes on. Any number of processes may work on one folder: each
    takes the runs that no other one trains, and waits for the rest.

    Args:
        tables: which; ``("table4",)`` is the comparison of augmentations.
        base: recipe and source that all rows start from.
        load: the data set of a row, at the size of its recipe.
        recipe_name: for the report.
        methods: rows of Table IV to train; other tables are trained whole.
        grid: points of "regimes"; None takes the default.
        seeds: one run of every row for each.
        folder: gets a folder for every run, by `name_run`; ``config.json``, ``results.json``, ``metrics.jsonl``.
        session: device, precision and processes.
        watch: makes the callback of a run from its title, recipe and folder.
        on_results: is called on the first process after each run, and at the end, with what ``results.json`` holds.

    Returns:
        What ``results.json`` holds: all finished runs of the tables, also of other seeds and methods.

    Raises:
        ValueError: ``folder`` is another experiment's, or of a newer version; one of `CHOOSING` without images held
            out to choose by; more images a class than there are, or fewer than fill a batch.
        ValueError, OSError: there are no weights for one of the backbones, or they do not fit.
    """
    # 1. Refuse what cannot be done before any image is read.
    folder, source = expand_home(folder), base.source
    choosing = [name for name in tables if name in CHOOSING]
    if choosing and source.hold_out is None:
        raise ValueError(
            f"{choosing[0]}: settings must not be chosen on test images; hold training images out with --hold-out 3"
        )
    grid = grid or Grid()
    wanted = {name: table_rows(name, base, grid) for name in tables}
    rows = {f"{name} {label}": row for name, found in wanted.items() for label, row in found.items()}
    for recipe in {(row.recipe.backbone, row.recipe.width_mult): row.recipe for row in rows.values()}.values():
        session.processes.take_turns(partial(source.check_weights, recipe))
    if (folder / "results.json").exists():
        read_results(folder)  # of a newer version: must not be overwritten
    check_folder(folder, source, base.recipe, rows=True)

    # 2. The data have images for all rows, and the folder belongs to this study.
    for row in rows.values():
        if row.source != source:
            count_batches(row.recipe, len(load(row).train.labels))
    dataset = load(base)
    identity = make_identity(source, dataset, replace(base.recipe, augmentation="none"), session.fabric)
    write_identity(folder, {"experiment": "study", **identity}, session)
    costs = {
        name: {label: _measure_cost(row.recipe, dataset) for label, row in found.items()}
        for name, found in wanted.items()
        if name in COSTED
    }

    def publish() -> dict[str, Any]:
        facts = describe_study(source, dataset, base.recipe, recipe_name, session)
        if costs:
            facts["costs"] = costs
        if "regimes" in tables:
            facts["grid"] = {name: list(values) for name, values in asdict(grid).items()}
        results = gather_results(folder, facts, wanted)
        if session.fabric.is_global_zero:
            for run, row in _list_shown(folder, rows.values()).items():
                if (row.recipe.resize, row.source) == (base.recipe.resize, source):  # others have kept theirs
                    keep_preview(run, dataset, row.recipe, int(run.name.rpartition("seed")[2]))
            write_lines(folder / "metrics.jsonl", list_records(results))
            write_json(folder / "results.json", results)
            on_results(results)
        return results

    # 3. Train what is missing; tables share runs. The longest come first, so that several processes end together.
    left = {
        locate_run(folder, row, seed): (f"{name} {label}, seed {seed}", row, seed)
        for seed in seeds
        for name, found in wanted.items()
        for label, row in sorted(found.items(), key=lambda item: not needs_maps(item[1].recipe))
        if name != "table4" or label in methods
    }
    while left := {place: run for place, run in left.items() if not (place / "result.json").exists()}:
        busy = []
        for place, (title, row, seed) in left.items():
            try:
                train_run(
                    row.source,
                    load(row),
                    row.recipe,
                    seed=seed,
                    folder=place,
                    session=session,
                    callback=watch(title, row.recipe, place),
                )
            except FolderBusyError:
                busy.append(place)
            else:
                publish()
        if len(busy) == len(left):
            with FileLock(busy[0] / LOCK):  # nothing to do but to wait until another process is done
                pass

    # 4. Measure what needs trained networks.
    for row in wanted.get("table7", {}).values():
        for seed in seeds:
            keep_robustness(locate_run(folder, row, seed), row.recipe, load(row), session)
    for row in wanted.get("figure4", {}).values():
        _keep_activations(locate_run(folder, row, seeds[0]), row, load(row), session)
    return publish()


def _measure_cost(recipe: Recipe, dataset: Dataset) -> dict[str, int]:
    """Measure the cost of a row's network at the size of its test."""
    return measure_cost(make_network(recipe, len(dataset.classes)), recipe.test_side)


def _list_shown(folder: Path, rows: Iterable[Row]) -> dict[Path, Row]:
    """Runs whose first inputs a page shows: the first finished one of each row."""
    finished = [(list_finished(folder, row), row) for row in rows]
    return {places[0]: row for places, row in finished if places}


def _keep_activations(folder: Path, row: Row, dataset: Dataset, session: Session) -> None:
    """Write Figure 4's maps and the pointing scores, once."""
    with lock_folder(folder, session, wait=True):
        if session.fabric.is_global_zero and not (folder / "activations.npz").exists():
            network = open_network(folder, row.recipe, len(dataset.classes), session.fabric)
            keep_activations(folder, network, dataset, row.recipe, row.source, session.fabric)
