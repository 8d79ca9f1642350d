"""Commands of `pmsi`: what each of `pmsi.cli.options` does, and what it prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

import mosaicaug
from pmsi.cli.console import Screen, end, print_whole, say
from pmsi.cli.data import Data, run_data
from pmsi.cli.evaluate import run_evaluate
from pmsi.cli.export import run_export
from pmsi.cli.options import Common, Compare, Describe, Export, Reproduce, Serve, Train, name_recipe, parse
from pmsi.cli.predict import Predict, run_predict
from pmsi.cli.serve import run_serve
from pmsi.cli.session import load_data, open_session
from pmsi.data.dataset import Dataset
from pmsi.experiments.folder import check_folder
from pmsi.experiments.measurement import keep_robustness
from pmsi.experiments.pictures import keep_errors
from pmsi.experiments.results import describe_study, gather_run, load_study
from pmsi.experiments.run import train_run
from pmsi.experiments.source import Source
from pmsi.experiments.study import study
from pmsi.experiments.tables import NAMES, PAPER_NAMES, Grid, Name, Row
from pmsi.models.cost import measure_cost
from pmsi.models.describe import describe_network, print_description
from pmsi.models.registry import make_network
from pmsi.recipe import METHODS, Method, Recipe
from pmsi.report.card import write_card
from pmsi.report.mistakes import write_confusions
from pmsi.report.page import write_page
from pmsi.report.study_tables import describe_tables, list_tables
from pmsi.runtime.files import escape, write_json
from pmsi.runtime.jobs import start_copies
from pmsi.runtime.processes import process_rank
from pmsi.runtime.profiler import Profile
from pmsi.runtime.signals import Stopped
from pmsi.training.callbacks import Callback
from pmsi.training.loggers import Curves, LoggedRun, check_logger


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
        console.print(f"pmsi {mosaicaug.__version__}", highlight=False)
        return 0
    try:
        return _carry_out(words, console)
    except BrokenPipeError:
        raise  # no error of ours
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
    if isinstance(command, Compare | Reproduce) and (not command.seeds or min(command.seeds) < 0):
        raise ValueError(f"--seeds: give one number or more, each 0 or above, got {list(command.seeds)}")
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
    elif isinstance(command, Predict):
        return run_predict(command)
    elif isinstance(command, Export):
        return run_export(command, console)
    elif isinstance(command, Serve):
        return run_serve(command, console)
    elif isinstance(command, Data):
        with Screen(console) as screen:
            return run_data(command, console, screen.loading)
    else:
        run_evaluate(command, console)
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
    for logger in command.log:
        check_logger(logger)
    base, recipe_name = Row(command.settings, command.source), name_recipe(command)
    folder = command.run or Path("runs") / f"{what}-{command.source.data}-{recipe_name}"
    check_folder(folder, base.source, base.recipe, rows=True)
    session = open_session(command, command.compute, console)
    loaded: dict[tuple[int, Source], Dataset] = {}
    with Screen(console) as screen:

        def load(row: Row) -> Dataset:
            key = (row.recipe.resize, row.source)
            if key not in loaded:
                loaded[key] = load_data(row.source, row.recipe, session, screen)
                screen.say(loaded[key].protocol)
            return loaded[key]

        results = study(
            names,
            base,
            load,
            recipe_name,
            methods=methods,
            grid=grid,
            seeds=command.seeds,
            folder=folder,
            session=session,
            watch=lambda title, chosen, place: _watch(command, screen, title, chosen, place),
            on_results=lambda _: write_page(load_study(folder), folder / "report.html"),
        )
    if session.fabric.is_global_zero:
        found = load_study(folder)
        write_json(folder / "tables.json", describe_tables(found))
        for table in (table for tables in list_tables(found).values() for table in tables):
            print_whole(table.to_rich(), console)
    say(console, f"Report: {(folder / 'report.html').resolve()}")
    rows = [
        {"table": name, "method": row, **{key: run[key] for key in ("seed", "concat", "mix")}}
        for name, runs_by_row in results["tables"].items()
        for row, runs in runs_by_row.items()
        for run in runs
    ]
    end(console, {"results": str((folder / "results.json").resolve()), "rows": rows})


def _train(command: Train, console: Console) -> None:
    if command.seed < 0:
        raise ValueError(f"--seed: must be 0 or above, got {command.seed}")
    for logger in command.log:
        check_logger(logger)
    recipe, name = command.settings, name_recipe(command)
    default = Path("runs") / f"train-{command.source.data}-{name}-{recipe.augmentation}-seed{command.seed}"
    folder = command.run or default
    check_folder(folder, command.source, recipe, rows=False)
    session = open_session(command, command.compute, console)
    with Screen(console) as screen, ExitStack() as stack:
        dataset = load_data(command.source, recipe, session, screen)
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
    keep_robustness(folder, recipe, dataset, session)
    if session.fabric.is_global_zero:
        keep_errors(folder, dataset, recipe, session.fabric)
        facts = describe_study(command.source, dataset, recipe, name, session)
        facts["cost"] = measure_cost(make_network(recipe, len(dataset.classes)), recipe.test_side)
        write_json(folder / "results.json", gather_run(folder, facts, recipe))
        study = load_study(folder)
        write_page(study, folder / "report.html")
        write_confusions(study, folder / "confusions.csv")
        write_card(study, folder / "card.md")
    if profile is not None:
        console.print(profile.make_table())
        say(console, f"Trace: {profile.file.resolve()}")
    images = len(dataset.test.labels)
    say(console, f"Concat {result['concat']:.1f} %, Mix {result['mix']:.1f} % of {images} test images")
    checkpoint = (folder / "last.ckpt").resolve()
    say(console, f"Checkpoint: {checkpoint}")
    say(console, f"Report: {(folder / 'report.html').resolve()}")
    kept = {name: result[name] for name in ("seed", "concat", "mix", "stages", "seconds")}
    end(console, {**kept, "checkpoint": str(checkpoint)})


def _watch(command: Common, screen: Screen, name: str, recipe: Recipe, folder: Path) -> Callback:
    """Callback of one run: the screen, and the loggers that were asked for."""
    callback: Callback = screen.watch(name, recipe)
    if screen.bars.console.quiet:
        return callback
    for logger in dict.fromkeys(command.log):
        settings = {**recipe.to_dict(), "data": command.source.data}
        callback = Curves(logger, LoggedRun(folder, settings, recipe.epochs), callback)
    return callback
