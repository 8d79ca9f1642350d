"""The paper's tables and figure, each a list of runs over recipes; a run that several of them share is trained once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from filelock import FileLock
from lightning.fabric import Fabric
from torch import Tensor

from pmsi.build import read_network
from pmsi.config import METHODS, MODERN, RECIPES, NetworkName, Recipe
from pmsi.data import Dataset
from pmsi.devices import Processes
from pmsi.files import load_checkpoint, write_json
from pmsi.model import Network
from pmsi.rivals import RECIPES as RIVAL_RECIPES
from pmsi.robustness import Robustness, measure_robustness
from pmsi.runs import (
    LOCK,
    BusyError,
    Source,
    check_folder,
    claim,
    describe_data,
    describe_environment,
    hold,
    identify,
    run_once,
)
from pmsi.store import place
from pmsi.watch import Watch

PaperName = Literal["table2", "table3", "table4", "table5", "table6", "table7", "figure4"]
Name = Literal[PaperName, "candidates", "modern"]
Choice = Literal["all", Name]
NAMES: tuple[Name, ...] = get_args(Name)
PAPER_NAMES: tuple[PaperName, ...] = get_args(PaperName)  # "all"

# Ways to train that may be better than the paper's, one at a time.
CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    "one cycle": {"schedule": "onecycle"},
    "a draw per image": {"per": "sample"},
    "uniform shuffles": {"permutation": "uniform"},
    "shared chain": {"chain": "shared"},
    "half of the images": {"mosaic_p": 0.5},
    "label smoothing": {"label_smoothing": 0.1},
    "averaged weights": {"ema_decay": 0.999},
    "whole test images": {"test_whole": True},
}


def list_runs(name: Name, base: Recipe) -> dict[str, Recipe]:
    """The runs of a table by its rows in `pmsi.paper`, or of the figure: ``base`` with one thing changed in each.

    Two are not the paper's. "candidates": RMG-PMSI under ``base``, each of `CANDIDATES` that ``base`` does not have
    already, and all that were kept; "modern": the first and the last of these.
    """
    plain = replace(base, augmentation="none")
    baseline = adapt_rival("baseline", base)
    ours = replace(base, augmentation="rmg")
    if name == "table2":
        return {str(stages): replace(plain, stages=stages) for stages in range(1, 6)}
    if name == "table3":
        return {
            "baseline": baseline,
            "m": replace(plain, progressive=False),
            "p": replace(plain, interaction=False),
            "pm": plain,
            "pr": replace(ours, interaction=False),
            "pmr": ours,
        }
    if name == "table4":
        return {method: replace(base, augmentation=method) for method in METHODS}
    if name == "table5":
        rivals: tuple[NetworkName, ...] = ("bcnn", "hbp", "pc", "api", "pmg", "cnl")
        return {**{rival: adapt_rival(rival, base) for rival in rivals}, "pmsi": ours}
    if name == "table6":
        names = ("mobilenet_v2", "resnet18", "resnet34")
        return {
            row: replace(recipe, backbone=backbone)
            for backbone in names
            for row, recipe in ((backbone, baseline), (f"{backbone} pmsi", ours))
        }
    if name in ("candidates", "modern"):
        tried = CANDIDATES if name == "candidates" else {}
        changed = {row: replace(ours, **change) for row, change in {**tried, "modern": MODERN}.items()}
        return {"rmg": ours, **{row: recipe for row, recipe in changed.items() if recipe != ours}}
    return {"baseline": baseline, "pmsi": ours} if name == "table7" else {"pmsi": ours}


def adapt_rival(name: NetworkName, base: Recipe) -> Recipe:
    """A rival's own recipe; at another budget than the paper's, the budget's image size, length and rates.

    Frozen epochs keep their share, and new layers learn as much faster than the backbone as they do in the rival's own
    recipe, if that is more (features of unit length need rates a hundred times as large).
    """
    paper, own = RECIPES["paper"], dict(RIVAL_RECIPES[name])
    if base.epochs != paper.epochs and name != "baseline":
        full = replace(paper, network=name, **own)
        ratio = max(full.lr_new / full.lr_backbone, base.lr_new / base.lr_backbone)
        own = {key: value for key, value in own.items() if key not in ("resize", "epochs", "lr_backbone")}
        own |= {
            "freeze_epochs": round(full.freeze_epochs / full.epochs * base.epochs),
            "lr_new": base.lr_backbone * ratio,
        }
    return replace(base, network=name, **own)


def name_run(recipe: Recipe, seed: int) -> str:
    """The folder of a run: what it is, and a digest of all its settings."""
    digest = hashlib.sha256(json.dumps(recipe.to_dict(), sort_keys=True).encode()).hexdigest()[:10]
    return f"{recipe.network}-{recipe.augmentation}-{digest}-seed{seed}"


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
    watch: Callable[[str, Recipe, Path], Watch],
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
    tables = {name: list_runs(name, base) for name in names}
    for backbone in dict.fromkeys(recipe.backbone for rows in tables.values() for recipe in rows.values()):
        Processes(fabric).take_turns(partial(source.check_weights, backbone))
    dataset = load(base)
    check_folder(folder, source, base, rows=True)
    identity = identify(source, dataset, replace(base, augmentation="none"), fabric)
    claim(folder, {"experiment": "reproduce", **identity}, fabric)
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
                run_once(source, load(recipe), recipe, watch=listener, **how)
            except BusyError:
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
            name: {row: [_read(folder / name_run(recipe, seed)) for seed in seeds] for row, recipe in rows.items()}
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


def open_network(folder: Path, recipe: Recipe, num_classes: int, fabric: Fabric) -> Network:
    """A finished run's network, on the device, in eval mode."""
    network = read_network(load_checkpoint(folder / "last.ckpt"), recipe, num_classes)
    network.to(fabric.device).eval()
    return network


def _read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return {"folder": folder.name, **{name: value for name, value in found.items() if name != "curve"}}


def _measure(folder: Path, recipe: Recipe, dataset: Dataset, fabric: Fabric) -> dict[str, dict[str, float]]:
    """Accuracies under each corruption, measured once."""
    path = folder / "robustness.json"
    with hold(folder, fabric, wait=True):
        if not path.exists():
            network = open_network(folder, recipe, len(dataset.classes), fabric)
            found = measure_robustness(network, place(dataset.test, fabric.device), recipe, fabric)
            kept = {name: {"concat": one.concat, "mix": one.mix} for name, one in _list_evaluations(found).items()}
            if fabric.is_global_zero:
                write_json(path, kept)
            fabric.barrier()
    read: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
    return read


def _list_evaluations(found: Robustness) -> Mapping[str, Any]:
    return {"clean": found.clean, **found.corrupted}


def read_predictions(folder: Path, recipe: Recipe, runs: Sequence[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Labels ``[N]`` and predictions ``[S, N]`` of a row's runs: Mix, or Concat where the stages are not trained."""
    read = [json.loads((folder / run["folder"] / "predictions.json").read_text(encoding="utf-8")) for run in runs]
    what = "mix" if recipe.progressive else "concat"
    return torch.tensor(read[0]["labels"]), torch.tensor([one[what] for one in read])
