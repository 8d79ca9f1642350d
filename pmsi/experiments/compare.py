"""`pmsi compare`: Table IV, one recipe with one field changed, in a folder that survives interruption."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from mosaicaug import apply
from pmsi.data.dataset import Dataset
from pmsi.experiments.folder import check_folder, make_identity, write_identity
from pmsi.experiments.run import train_run
from pmsi.experiments.source import Source, describe_data, describe_weights
from pmsi.recipe import METHODS, Method, Recipe
from pmsi.report.comparison import write_report
from pmsi.runtime.environment import describe_environment
from pmsi.runtime.files import write_json, write_lines
from pmsi.training.batches import plan_epoch
from pmsi.training.callbacks import Callback
from pmsi.training.phases import caption_phases

_PREVIEW_IMAGES = 8


def compare(
    source: Source,
    dataset: Dataset,
    recipe: Recipe,
    recipe_name: str,
    *,
    methods: Sequence[Method],
    seeds: Sequence[int],
    folder: Path,
    fabric: Fabric,
    watch: Callable[[Method, int, Recipe], Callback],
    compile: bool = False,  # noqa: A002 - torch's name
) -> dict[str, Any]:
    """Table IV: one recipe, one field changed. Runs that are finished are kept, one that was stopped goes on.

    Args:
        folder: gets ``config.json``, ``results.json``, ``metrics.jsonl``, ``report.html`` and a folder for every run.
        watch: makes the listener of each run.

    Returns:
        What ``results.json`` holds.

    Raises:
        ValueError: ``folder`` holds an experiment of another configuration.
    """
    identity = {"experiment": "table4", **make_identity(source, dataset, replace(recipe, augmentation="none"), fabric)}
    check_folder(folder, source, recipe, rows=True)
    write_identity(folder, identity, fabric)
    results = None
    for method, seed in [(method, seed) for seed in seeds for method in METHODS if method in methods]:
        chosen = replace(recipe, augmentation=method)
        place = folder / f"{method}-seed{seed}"
        if not (place / "result.json").exists():
            listener = watch(method, seed, chosen)
            train_run(source, dataset, chosen, seed=seed, folder=place, fabric=fabric, watch=listener, compile=compile)
            results = _summarise(folder, source, dataset, recipe, recipe_name, fabric)
    return results or _summarise(folder, source, dataset, recipe, recipe_name, fabric)


def preview(dataset: Dataset, recipe: Recipe, seed: int) -> Tensor:
    """The first images of training as the network saw them, uint8 ``[phases * images, 3, H, W]``, phase by phase."""
    first = next(plan_epoch(recipe, len(dataset.train.labels), seed=seed, epoch=0))
    rows = len(caption_phases(recipe))
    stored = dataset.train.take(first.index)
    shown = [apply(stored, draw.plan, window=first.window) for draw in first.draws[:rows]]
    return torch.cat([images[:_PREVIEW_IMAGES] for images in shown])


def _summarise(
    folder: Path, source: Source, dataset: Dataset, recipe: Recipe, recipe_name: str, fabric: Fabric
) -> dict[str, Any]:
    """Write results, metrics and the page from the runs that are finished."""
    rows, metrics = [], []
    strips: dict[str, Tensor] = {}
    captions: dict[str, list[str]] = {}
    for method in METHODS:
        places = sorted(folder.glob(f"{method}-seed*/result.json"), key=lambda place: _seed_of(place.parent))
        finished = [json.loads(place.read_text(encoding="utf-8")) for place in places]
        rows.append({"method": method, "runs": finished})
        for run in finished:
            metrics += [{"method": method, "seed": run["seed"], **record} for record in run["curve"]]
        if finished:
            chosen = replace(recipe, augmentation=method)
            strips[method] = preview(dataset, chosen, finished[0]["seed"])
            captions[method] = caption_phases(chosen)
    results = {
        "schema": 1,
        "experiment": "table4",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": describe_data(dataset),
        "recipe": {"name": recipe_name, **recipe.to_dict()},
        "weights": describe_weights(source.find_weights(recipe.backbone)),
        "environment": describe_environment(fabric),
        "rows": rows,
        "strips": captions,
    }
    if fabric.is_global_zero:
        write_lines(folder / "metrics.jsonl", metrics)
        write_json(folder / "results.json", results)
        write_report(results, strips, folder / "report.html")
    return results


def _seed_of(place: Path) -> int:
    return int(place.name.rpartition("seed")[2])
