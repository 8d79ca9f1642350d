"""The `pmsi` command: what each of `pmsi.cli.options` does, and what it prints."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from rich.console import Console
from rich.table import Table

from pmsi.cli.console import Screen
from pmsi.cli.data import Data, run_data
from pmsi.cli.options import Common, Compare, Describe, Evaluate, Reproduce, Train, name_recipe, name_settings, parse
from pmsi.data.dataset import Dataset
from pmsi.data.storage import make_store
from pmsi.evaluation.accuracy import evaluate
from pmsi.experiments.compare import compare
from pmsi.experiments.folder import check_folder
from pmsi.experiments.run import train_run
from pmsi.experiments.source import Source
from pmsi.experiments.study import reproduce
from pmsi.experiments.tables import NAMES, PAPER_NAMES
from pmsi.models.describe import describe, print_description
from pmsi.models.registry import make_network, read_network
from pmsi.recipe import Recipe
from pmsi.report.comparison import rich_table
from pmsi.report.page import write_page
from pmsi.runtime.checkpoints import load_checkpoint
from pmsi.runtime.devices import open_fabric
from pmsi.runtime.processes import Processes, process_rank
from pmsi.runtime.profiler import Profile
from pmsi.runtime.signals import Stopped
from pmsi.training.callbacks import Callback, TensorBoard


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 if a data set that was checked has something wrong with it, 2
    for an error in what was asked, 130 or 143 when stopped."""
    console = Console(quiet=process_rank() > 0)  # of several processes, the first one speaks
    try:
        command = parse(sys.argv[1:] if arguments is None else arguments)
        if isinstance(command, Compare):
            _compare(command, console)
        elif isinstance(command, Train):
            _train(command, console)
        elif isinstance(command, Reproduce):
            _reproduce(command, console)
        elif isinstance(command, Describe):
            network = make_network(command.settings, command.classes, command.weights)
            print_description(describe(network, command.settings.crop), console)
        elif isinstance(command, Data):
            with Screen(console) as screen:
                return run_data(command, console, screen.loading)
        else:
            _evaluate(command, console)
    except (ValueError, OSError) as error:
        who = f"pmsi, process {process_rank()}" if process_rank() > 0 else "pmsi"
        Console(stderr=True).print(f"{who}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except Stopped as stopped:
        console.print("\nStopped. All that was done is saved; the same command goes on from there.")
        return 128 + stopped.signal
    except KeyboardInterrupt:
        console.print("\nStopped. What was saved before stays; the same command goes on from there.")
        return 130
    return 0


def _compare(command: Compare, console: Console) -> None:
    if not command.methods:
        raise ValueError("--methods: name one row or more")
    _check_seeds(command.seeds)
    recipe, name = command.settings, name_recipe(command)
    folder = command.run or Path("runs") / f"compare-{command.source.data}-{name}"
    check_folder(folder, command.source, recipe, rows=True)
    fabric = _open_fabric(command)
    with Screen(console) as screen:
        dataset = _load(command.source, recipe, fabric, screen)
        screen.say(dataset.protocol)
        results = compare(
            command.source,
            dataset,
            recipe,
            name,
            methods=command.methods,
            seeds=command.seeds,
            folder=folder,
            fabric=fabric,
            watch=lambda method, seed, chosen: _watch(
                command, screen, f"{method}, seed {seed}", chosen, folder / f"{method}-seed{seed}"
            ),
            compile=command.engine.compile,
        )
    console.print(rich_table(results))
    console.print(f"Report: {(folder / 'report.html').resolve()}", markup=False, highlight=False, soft_wrap=True)
    rows = [
        {"method": row["method"], "seed": run["seed"], "concat": run["concat"], "mix": run["mix"]}
        for row in results["rows"]
        for run in row["runs"]
    ]
    _end(console, {"results": str((folder / "results.json").resolve()), "rows": rows})


def _train(command: Train, console: Console) -> None:
    if command.seed < 0:
        raise ValueError(f"--seed: must be 0 or above, got {command.seed}")
    recipe, name = command.settings, name_recipe(command)
    default = Path("runs") / f"train-{command.source.data}-{name}-{recipe.augmentation}-seed{command.seed}"
    folder = command.run or default
    check_folder(folder, command.source, recipe, rows=False)
    fabric = _open_fabric(command)
    with Screen(console) as screen, ExitStack() as stack:
        dataset = _load(command.source, recipe, fabric, screen)
        screen.say(dataset.protocol)
        profile = None
        if command.profile and fabric.is_global_zero:
            profile = stack.enter_context(Profile(folder / "profile.json", fabric.device))
        result = train_run(
            command.source,
            dataset,
            recipe,
            seed=command.seed,
            folder=folder,
            fabric=fabric,
            watch=_watch(command, screen, recipe.augmentation, recipe, folder),
            compile=command.engine.compile,
            profile=profile,
        )
    if profile is not None:
        console.print(profile.make_table())
        console.print(f"Trace: {profile.file.resolve()}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"Concat {result['concat']:.1f} %, Mix {result['mix']:.1f} % of {len(dataset.test.labels)} test images"
    )
    checkpoint = (folder / "last.ckpt").resolve()
    console.print(f"Checkpoint: {checkpoint}", markup=False, highlight=False, soft_wrap=True)
    kept = {name: result[name] for name in ("seed", "concat", "mix", "stages", "seconds")}
    _end(console, {**kept, "checkpoint": str(checkpoint)})


def _reproduce(command: Reproduce, console: Console) -> None:
    _check_seeds(command.seeds)
    wanted = {*command.names, *(PAPER_NAMES if "all" in command.names else ())}
    names = tuple(name for name in NAMES if name in wanted)
    recipe, name = command.settings, name_recipe(command)
    folder = command.run or Path("runs") / f"reproduce-{command.source.data}-{name}"
    check_folder(folder, command.source, recipe, rows=True)
    fabric = _open_fabric(command)
    loaded: dict[int, Dataset] = {}
    with Screen(console) as screen:

        def load(chosen: Recipe) -> Dataset:
            if chosen.resize not in loaded:
                loaded[chosen.resize] = _load(command.source, chosen, fabric, screen)
            return loaded[chosen.resize]

        results = reproduce(
            names,
            command.source,
            load,
            recipe,
            name,
            seeds=command.seeds,
            folder=folder,
            fabric=fabric,
            watch=lambda title, chosen, make_store: _watch(command, screen, title, chosen, make_store),
            compile=command.engine.compile,
        )
        if fabric.is_global_zero:
            parts = write_page(results, load(recipe), recipe, folder, command.source, fabric)
    if fabric.is_global_zero:
        for part in (part for found in parts.values() for part in found):
            _print_whole(part.to_rich(), console)
    console.print(f"Report: {(folder / 'report.html').resolve()}", markup=False, highlight=False, soft_wrap=True)
    _end(console, {"results": str((folder / "results.json").resolve())})


def _print_whole(table: Table, console: Console) -> None:
    """At its own width: a terminal may break its lines, but no figure is cut short."""
    width, needed = console.width, Console(width=1000).measure(table).maximum
    console.width = max(width, needed)
    console.print(table)
    console.width = width


def _check_seeds(seeds: tuple[int, ...]) -> None:
    if not seeds or min(seeds) < 0:
        raise ValueError(f"--seeds: give one number or more, each 0 or above, got {list(seeds)}")


def _evaluate(command: Evaluate, console: Console) -> None:
    state = load_checkpoint(command.checkpoint)
    fabric = open_fabric(command.engine.device, command.engine.precision)
    identity = state["identity"]
    recipe = Recipe(**{name[7:]: value for name, value in identity.items() if name.startswith("recipe.")})
    data = command.data or identity["data"]
    source = Source(
        data=data,
        root=command.root or (Path(identity["root"]) if identity["root"] else None),
        hold_out=identity.get("hold_out") if data == identity["data"] else None,
        skip_unreadable=identity["skip_unreadable"],
        cache=command.cache,
    )
    with Screen(console) as screen:
        dataset = _load(source, recipe, fabric, screen)
    if len(dataset.classes) != identity["classes"]:
        raise ValueError(
            f"{command.checkpoint} knows {identity['classes']} classes, {source.data} has {len(dataset.classes)}"
        )
    network = read_network(state, recipe, identity["classes"])
    found = evaluate(fabric.to_device(network), make_store(dataset.test, fabric.device), recipe, fabric)
    for k, accuracy in enumerate(found.stages, 6 - recipe.stages):
        console.print(f"Stage {k}  {accuracy:.2f} %")
    console.print(
        f"Concat   {found.concat:.2f} %\nMix      {found.mix:.2f} % of {len(dataset.test.labels)} test images"
    )
    _end(console, {"concat": found.concat, "mix": found.mix, "stages": list(found.stages)})


def _open_fabric(command: Common) -> Fabric:
    """Launched, and of one mind with the other processes about what to do."""
    fabric = open_fabric(command.engine.device, command.engine.precision)
    Processes(fabric).check_same(name_settings(asdict(command)))
    return fabric


def _load(source: Source, recipe: Recipe, fabric: Fabric, screen: Screen) -> Dataset:
    """The first process of each host reads the images, the others find them in the cache."""
    return Processes(fabric).take_turns(lambda: source.load(recipe, screen.loading, screen.say))


def _watch(command: Common, screen: Screen, name: str, recipe: Recipe, folder: Path) -> Callback:
    watch = screen.watch(name, recipe)
    return TensorBoard(folder, watch) if command.tensorboard and not screen.bars.console.quiet else watch


def _end(console: Console, values: dict[str, Any]) -> None:
    """The last line, for scripts: JSON."""
    console.print(json.dumps(values), markup=False, highlight=False, soft_wrap=True)
