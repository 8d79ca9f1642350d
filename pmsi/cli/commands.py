"""Commands of `pmsi`: what each of `pmsi.cli.options` does, and what it prints."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import NoneType
from typing import Any

from rich.console import Console
from rich.table import Table

from pmsi.cli.console import Screen
from pmsi.cli.data import Data, run_data
from pmsi.cli.options import Common, Compare, Describe, Evaluate, Reproduce, Train, name_recipe, name_settings, parse
from pmsi.data.dataset import Dataset
from pmsi.evaluation.accuracy import evaluate
from pmsi.experiments.folder import check_folder, read_recipe
from pmsi.experiments.results import describe_study, describe_test, gather_run, load_study
from pmsi.experiments.run import train_run
from pmsi.experiments.source import Source
from pmsi.experiments.study import study
from pmsi.experiments.tables import NAMES, PAPER_NAMES, Grid, Name, Row
from pmsi.models.describe import describe_network, print_description
from pmsi.models.registry import make_network, read_network
from pmsi.recipe import METHODS, Method, Recipe
from pmsi.report.page import write_page
from pmsi.report.study_tables import describe_tables, list_tables
from pmsi.runtime.checkpoints import load_checkpoint
from pmsi.runtime.devices import open_fabric
from pmsi.runtime.files import check_fields, escape, write_json
from pmsi.runtime.jobs import start_copies
from pmsi.runtime.processes import process_rank
from pmsi.runtime.profiler import Profile
from pmsi.runtime.session import Session
from pmsi.runtime.signals import Stopped
from pmsi.runtime.threads import set_threads
from pmsi.training.callbacks import Callback, TensorBoard

# Types of what `pmsi evaluate` takes from a checkpoint's identity.
_IDENTITY = {
    "classes": (int,),
    "class_names": (list, NoneType),
    **dict.fromkeys(("data", "root", "weights"), (str, NoneType)),
    **dict.fromkeys(("hold_out", "seed"), (int, NoneType)),
    "skip_unreadable": (bool, NoneType),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: words after `pmsi`; None takes those of this process.

    Returns:
        The exit code: 0, 1 if a data set that was checked has something wrong with it, 2 for an error in what was
        asked, 130 or 143 when stopped.
    """
    console = Console(quiet=process_rank() > 0)  # of several processes, the first one speaks
    words = sys.argv[1:] if arguments is None else arguments
    if words == ["--version"]:
        console.print(f"pmsi {importlib.metadata.version('mosaicaug')}", highlight=False)
        return 0
    try:
        return _carry_out(words, console)
    except (ValueError, OSError) as error:
        who = f"pmsi, process {process_rank()}" if process_rank() > 0 else "pmsi"
        Console(stderr=True).print(
            escape(f"{who}: {error}"), style="red", markup=False, highlight=False, soft_wrap=True
        )
        return 2
    except Stopped as stopped:
        console.print("\nStopped. All that was done is saved; the same command goes on from there.")
        return 128 + stopped.signal
    except KeyboardInterrupt:
        console.print("\nStopped. What was saved before stays; the same command goes on from there.")
        return 130


def _carry_out(words: list[str], console: Console) -> int:
    command = parse(words)
    if isinstance(command, Compare):
        if not command.methods:
            raise ValueError("--methods: name one row or more")
        with start_copies(words, command.jobs):
            _study(command, "compare", ("table4",), console, methods=command.methods)
    elif isinstance(command, Reproduce):
        wanted = {*command.names, *(PAPER_NAMES if "all" in command.names else ())}
        names = tuple(name for name in NAMES if name in wanted)
        grid = Grid(command.grid_methods, command.grid_per_class, command.grid_epochs)
        with start_copies(words, command.jobs):
            _study(command, "reproduce", names, console, grid=grid)
    elif isinstance(command, Train):
        _train(command, console)
    elif isinstance(command, Describe):
        network = make_network(command.settings, command.classes, command.weights)
        print_description(describe_network(network, command.settings.crop), console)
    elif isinstance(command, Data):
        with Screen(console) as screen:
            return run_data(command, console, screen.loading)
    else:
        _evaluate(command, console)
    return 0


def _study(
    command: Compare | Reproduce,
    what: str,
    names: Sequence[Name],
    console: Console,
    *,
    methods: Sequence[Method] = METHODS,
    grid: Grid | None = None,
) -> None:
    """`pmsi compare` and `pmsi reproduce`: the same engine for different tables."""
    seeds = command.seeds
    if not seeds or min(seeds) < 0:
        raise ValueError(f"--seeds: give one number or more, each 0 or above, got {list(seeds)}")
    base, recipe_name = Row(command.settings, command.source), name_recipe(command)
    folder = command.run or Path("runs") / f"{what}-{command.source.data}-{recipe_name}"
    check_folder(folder, base.source, base.recipe, rows=True)
    session = _open_session(command, console)
    loaded: dict[tuple[int, Source], Dataset] = {}
    with Screen(console) as screen:

        def load(row: Row) -> Dataset:
            key = (row.recipe.resize, row.source)
            if key not in loaded:
                loaded[key] = _load(row.source, row.recipe, session, screen)
                screen.say(loaded[key].protocol)
            return loaded[key]

        results = study(
            names,
            base,
            load,
            recipe_name,
            methods=methods,
            grid=grid,
            seeds=seeds,
            folder=folder,
            session=session,
            watch=lambda title, chosen, place: _watch(command, screen, title, chosen, place),
            on_results=lambda _: write_page(load_study(folder), folder / "report.html"),
        )
    if session.fabric.is_global_zero:
        found = load_study(folder)
        write_json(folder / "tables.json", describe_tables(found))
        for table in (table for tables in list_tables(found).values() for table in tables):
            _print_whole(table.to_rich(), console)
    _say(console, f"Report: {(folder / 'report.html').resolve()}")
    rows = [
        {"table": name, "method": row, **{key: run[key] for key in ("seed", "concat", "mix")}}
        for name, runs_by_row in results["tables"].items()
        for row, runs in runs_by_row.items()
        for run in runs
    ]
    _end(console, {"results": str((folder / "results.json").resolve()), "rows": rows})


def _train(command: Train, console: Console) -> None:
    if command.seed < 0:
        raise ValueError(f"--seed: must be 0 or above, got {command.seed}")
    recipe, name = command.settings, name_recipe(command)
    default = Path("runs") / f"train-{command.source.data}-{name}-{recipe.augmentation}-seed{command.seed}"
    folder = command.run or default
    check_folder(folder, command.source, recipe, rows=False)
    session = _open_session(command, console)
    with Screen(console) as screen, ExitStack() as stack:
        dataset = _load(command.source, recipe, session, screen)
        screen.say(dataset.protocol)
        profile = None
        if command.profile and session.fabric.is_global_zero:
            profile = stack.enter_context(Profile(folder / "profile.json", session.fabric.device))
        result = train_run(
            command.source,
            dataset,
            recipe,
            seed=command.seed,
            folder=folder,
            session=session,
            callback=_watch(command, screen, recipe.augmentation, recipe, folder),
            profile=profile,
        )
    if session.fabric.is_global_zero:
        facts = describe_study(command.source, dataset, recipe, name, session)
        write_json(folder / "results.json", gather_run(folder, facts, recipe))
        write_page(load_study(folder), folder / "report.html")
    if profile is not None:
        console.print(profile.make_table())
        _say(console, f"Trace: {profile.file.resolve()}")
    images = len(dataset.test.labels)
    _say(console, f"Concat {result['concat']:.1f} %, Mix {result['mix']:.1f} % of {images} test images")
    checkpoint = (folder / "last.ckpt").resolve()
    _say(console, f"Checkpoint: {checkpoint}")
    _say(console, f"Report: {(folder / 'report.html').resolve()}")
    kept = {name: result[name] for name in ("seed", "concat", "mix", "stages", "seconds")}
    _end(console, {**kept, "checkpoint": str(checkpoint)})


def _evaluate(command: Evaluate, console: Console) -> None:
    # 1. The checkpoint says what was trained, and on what.
    state = load_checkpoint(command.checkpoint)
    identity = state["identity"]
    if "classes" not in identity or (command.data or identity.get("data")) is None:
        lacks = "--data: " if "classes" in identity else ""
        raise ValueError(f"{lacks}{command.checkpoint} does not say what it was trained on; it is of no run of pmsi")
    check_fields(identity, _IDENTITY, command.checkpoint)
    recipe, names = read_recipe(identity, written_by=state.get("written_by")), identity.get("class_names")
    check_fields(dict(enumerate(names or ())), dict.fromkeys(range(len(names or ())), (str,)), command.checkpoint)
    data = command.data or identity["data"]
    session = _open_session(command, console)
    page = command.page or command.checkpoint.parent / f"evaluate-{data}.html"
    if page.name == "report.html" and page.with_name("config.json").exists():
        raise ValueError(f"--page: {page} is the report of a run; choose another name")
    root = command.root or (Path(identity["root"]) if identity.get("root") else None)
    own = data == identity.get("data")
    source = Source(
        data=data,
        root=root,
        hold_out=identity.get("hold_out") if own else None,
        skip_unreadable=bool(identity.get("skip_unreadable")),
        cache=command.cache,
        workers=command.workers,
    )

    # 2. The test.
    with Screen(console) as screen:
        dataset = _load(source, recipe, session, screen, names)
    if len(dataset.classes) != identity["classes"]:
        raise ValueError(f"the network knows {identity['classes']} classes, {data} has {len(dataset.classes)}")
    if names is None:  # of an earlier version, which did not keep them
        _say(
            console,
            f"{command.checkpoint} has no names of its classes: that {data} has them in its order is not checked",
        )
    network = read_network(state, recipe, identity["classes"], command.checkpoint)
    found = evaluate(network, dataset.test, recipe, session)

    # 3. What is said and written.
    for k, accuracy in enumerate(found.stages, 6 - recipe.stages):
        console.print(f"Stage {k}  {accuracy:.2f} %")
    images = len(dataset.test.labels)
    console.print(f"Concat   {found.concat:.2f} %\nMix      {found.mix:.2f} % of {images} test images")
    if session.fabric.is_global_zero:
        facts = describe_study(source, dataset, recipe, "of the checkpoint", session)
        facts["weights"] = identity.get("weights", "unknown")
        seed = identity.get("seed", 0)
        write_page(describe_test(facts, recipe, seed, found, dataset.test.labels), page)
    _say(console, f"Page: {page.resolve()}")
    _end(console, {"concat": found.concat, "mix": found.mix, "stages": list(found.stages), "page": str(page.resolve())})


def _open_session(command: Common | Evaluate, console: Console) -> Session:
    """Fabric, launched; all processes were given the same command."""
    compute = command.compute
    session = Session(open_fabric(compute.device, compute.precision), compute.compile)
    session.processes.check_same(name_settings(asdict(command)))
    if session.fabric.device.type == "cpu" and (advice := set_threads(compute.threads)) is not None:
        _say(console, advice)
    return session


def _load(
    source: Source, recipe: Recipe, session: Session, screen: Screen, classes: Sequence[str] | None = None
) -> Dataset:
    """The data set: the first process of each host reads the images, the others find them in the cache."""
    return session.processes.take_turns(lambda: source.load(recipe, screen.loading, screen.say, classes))


def _watch(command: Common, screen: Screen, name: str, recipe: Recipe, folder: Path) -> Callback:
    """Callback of one run: the screen, and TensorBoard where it was asked for."""
    callback = screen.watch(name, recipe)
    return TensorBoard(folder, callback) if command.tensorboard and not screen.bars.console.quiet else callback


def _print_whole(table: Table, console: Console) -> None:
    """Print at the table's own width: a terminal may break its lines, but no figure is cut short."""
    width, needed = console.width, Console(width=1000).measure(table).maximum
    console.width = max(width, needed)
    console.print(table)
    console.width = width


def _say(console: Console, line: str) -> None:
    console.print(escape(line), markup=False, highlight=False, soft_wrap=True)


def _end(console: Console, values: dict[str, Any]) -> None:
    """Print the last line, for scripts: JSON."""
    _say(console, json.dumps(values))
