"""The `pmsi` command: compare, train, evaluate, data."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from lightning.fabric import Fabric
from rich.console import Console

from pmsi.build import make_network
from pmsi.cli_data import Data, run_data
from pmsi.config import METHODS, RECIPES, Method, Recipe, RecipeName
from pmsi.data import DataName, Dataset
from pmsi.describe import describe, print_description
from pmsi.devices import Processes, find_rank, open_fabric
from pmsi.evaluate import evaluate
from pmsi.experiments import compare
from pmsi.files import load_checkpoint
from pmsi.profile import Profile
from pmsi.progress import Stopped
from pmsi.report import rich_table
from pmsi.reproduce import NAMES, Choice, reproduce
from pmsi.reproduce_report import list_parts, write_page
from pmsi.runs import Engine, Source, check_folder, run_once
from pmsi.store import place
from pmsi.watch import Screen, TensorBoard, Watch

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
    engine: Annotated[Engine, _Flat] = field(default_factory=Engine)
    tensorboard: bool = False
    """Write curves for TensorBoard to the folder of every run (needs the package tensorboard)."""


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
    profile: bool = False
    """Watch a few mini-batches with torch's profiler: a table, and profile.json in the folder of the run."""


@dataclass(frozen=True)
class Reproduce(Common):
    """Train the runs of the paper's tables and figure, or what is missing of them, and set them beside the paper's.

    Any number of these may work on one folder at a time."""

    names: Annotated[tuple[Choice, ...], tyro.conf.Positional] = ("all",)
    """Which."""
    seeds: tuple[int, ...] = (0,)
    """One run of every row for each; more can be added later."""


@dataclass(frozen=True)
class Describe:
    """What a network is made of and what it costs: stages, parameters, MACs, receptive fields, and the mosaics that the
    paper's rule allows at each stage."""

    recipe: RecipeName = "paper"
    """Where the defaults of the settings come from."""
    settings: Annotated[Recipe, _Flat] = field(default_factory=Recipe)
    classes: int = 200
    """To tell apart."""
    weights: str = "none"
    """Of the backbone, which effective receptive fields depend on: a file, "imagenet", or "none"."""


@dataclass(frozen=True)
class Evaluate:
    """Test a checkpoint: Concat, Mix and every stage."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """last.ckpt of a run."""
    data: DataName | None = None
    """Data set; by default the one it was trained on."""
    root: Path | None = None
    """Folder of the data set; by default where it was in training."""
    cache: Path | None = Source.cache
    """Folder that keeps decoded images, as in training."""
    engine: Annotated[Engine, _Flat] = field(default_factory=Engine)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 if a data set that was checked has something wrong with it, 2
    for an error in what was asked, 130 or 143 when stopped."""
    console = Console(quiet=find_rank() > 0)  # of several processes, the first one speaks
    try:
        command = _parse(sys.argv[1:] if arguments is None else arguments)
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
        who = f"pmsi, process {find_rank()}" if find_rank() > 0 else "pmsi"
        Console(stderr=True).print(f"{who}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except Stopped as stopped:
        console.print("\nStopped. All that was done is saved; the same command goes on from there.")
        return 128 + stopped.signal
    except KeyboardInterrupt:
        console.print("\nStopped. What was saved before stays; the same command goes on from there.")
        return 130
    return 0


def _parse(words: list[str]) -> Compare | Train | Reproduce | Describe | Evaluate | Data:
    """Two steps, because the recipe that is named gives the other settings their defaults."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--data", default="typefaces")
    first.add_argument("--recipe")
    known, _ = first.parse_known_args(words)
    name = known.recipe or ("demo" if known.data == "typefaces" else "quick")
    if words[:1] == ["describe"] and known.recipe is None:
        name = Describe.recipe
    settings = next(
        (recipe for key, recipe in RECIPES.items() if key == name), Recipe()
    )  # tyro reports a name that is not there
    commands = (
        Annotated[Compare, tyro.conf.subcommand("compare", default=Compare(settings=settings))]
        | Annotated[Train, tyro.conf.subcommand("train", default=Train(settings=settings))]
        | Annotated[Reproduce, tyro.conf.subcommand("reproduce", default=Reproduce(settings=settings))]
        | Annotated[Describe, tyro.conf.subcommand("describe", default=Describe(settings=settings))]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Data, tyro.conf.subcommand("data")]
    )
    summary = "RMG-PMSI: train and compare networks for fine-grained recognition."
    return tyro.cli(commands, prog="pmsi", description=summary, args=words)


def _compare(command: Compare, console: Console) -> None:
    if not command.methods:
        raise ValueError("--methods: name one row or more")
    _check_seeds(command.seeds)
    recipe, name = command.settings, _recipe_name(command)
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
    recipe, name = command.settings, _recipe_name(command)
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
        result = run_once(
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
    names = NAMES if "all" in command.names else tuple(name for name in NAMES if name in command.names)
    recipe, name = command.settings, _recipe_name(command)
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
            watch=lambda title, chosen, place: _watch(command, screen, title, chosen, place),
            compile=command.engine.compile,
        )
        if fabric.is_global_zero:
            write_page(results, load(recipe), recipe, folder, command.source.root, fabric)
            parts = list_parts(results, load(recipe), recipe, folder)
    if fabric.is_global_zero:
        for part in (part for found in parts.values() for part in found):
            console.print(part.to_rich())
    console.print(f"Report: {(folder / 'report.html').resolve()}", markup=False, highlight=False, soft_wrap=True)
    _end(console, {"results": str((folder / "results.json").resolve())})


def _check_seeds(seeds: tuple[int, ...]) -> None:
    if not seeds or min(seeds) < 0:
        raise ValueError(f"--seeds: give one number or more, each 0 or above, got {list(seeds)}")


def _evaluate(command: Evaluate, console: Console) -> None:
    state = load_checkpoint(command.checkpoint)
    fabric = open_fabric(command.engine.device, command.engine.precision)
    identity = state["identity"]
    recipe = Recipe(**{name[7:]: value for name, value in identity.items() if name.startswith("recipe.")})
    source = Source(
        data=command.data or identity["data"],
        root=command.root or (Path(identity["root"]) if identity["root"] else None),
        skip_unreadable=identity["skip_unreadable"],
        cache=command.cache,
    )
    with Screen(console) as screen:
        dataset = _load(source, recipe, fabric, screen)
    if len(dataset.classes) != identity["classes"]:
        raise ValueError(
            f"{command.checkpoint} knows {identity['classes']} classes, {source.data} has {len(dataset.classes)}"
        )
    network = make_network(recipe, identity["classes"])
    network.load_state_dict(state["model"])
    found = evaluate(fabric.to_device(network), place(dataset.test, fabric.device), recipe, fabric)
    for k, accuracy in enumerate(found.stages, 6 - recipe.stages):
        console.print(f"Stage {k}  {accuracy:.2f} %")
    console.print(
        f"Concat   {found.concat:.2f} %\nMix      {found.mix:.2f} % of {len(dataset.test.labels)} test images"
    )
    _end(console, {"concat": found.concat, "mix": found.mix, "stages": list(found.stages)})


def _open_fabric(command: Common) -> Fabric:
    """Launched, and of one mind with the other processes about what to do."""
    fabric = open_fabric(command.engine.device, command.engine.precision)
    Processes(fabric).check_same(_name_settings(asdict(command)))
    return fabric


def _name_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Flat, as they are typed."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _name_settings(value) if isinstance(value, dict) else {f"--{name.replace('_', '-')}": value}
    return flat


def _load(source: Source, recipe: Recipe, fabric: Fabric, screen: Screen) -> Dataset:
    """The first process of each host reads the images, the others find them in the cache."""
    return Processes(fabric).take_turns(lambda: source.load(recipe, screen.loading, screen.say))


def _watch(command: Common, screen: Screen, name: str, recipe: Recipe, folder: Path) -> Watch:
    watch = screen.watch(name, recipe)
    return TensorBoard(folder, watch) if command.tensorboard and not screen.bars.console.quiet else watch


def _end(console: Console, values: dict[str, Any]) -> None:
    """The last line, for scripts: JSON."""
    console.print(json.dumps(values), markup=False, highlight=False, soft_wrap=True)


def _recipe_name(command: Common) -> str:
    name: RecipeName = command.recipe or ("demo" if command.source.data == "typefaces" else "quick")
    return name if command.settings == RECIPES[name] else f"{name}-changed"
