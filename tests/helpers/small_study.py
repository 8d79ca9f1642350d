"""A study small enough for a test, and results of one that was never trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from pmsi.data.dataset import Dataset
from pmsi.experiments.folder import Predictions
from pmsi.experiments.pictures import Preview
from pmsi.experiments.results import Study
from pmsi.experiments.source import Source
from pmsi.experiments.study import study
from pmsi.experiments.tables import Grid, Name, Point, Row
from pmsi.recipe import METHODS, Method, Recipe
from tests.helpers.small_run import RECIPE, Watch, make_dataset, make_session

SHORT = replace(RECIPE, epochs=1, resize=68, crop=64)


class Silent(Watch):
    """Callback of runs with any number of phases."""

    def on_batch(self, *_: Any) -> None:
        self.batches += 1


def load(row: Row) -> Dataset:
    return make_dataset(side=row.recipe.resize)


def run_study(
    folder: Path,
    *tables: Name,
    watch: Callable[[str, Recipe, Path], Any] = lambda *_: Silent(),
    recipe: Recipe = SHORT,
    methods: Sequence[Method] = METHODS,
    grid: Grid | None = None,
    seeds: Sequence[int] = (0,),
    source: Source | None = None,
    load: Callable[[Row], Dataset] = load,
    on_results: Callable[[dict[str, Any]], object] = lambda _: None,
) -> dict[str, Any]:
    return study(
        tables,
        Row(recipe, source or Source()),
        load,
        "tiny",
        methods=methods,
        grid=grid,
        seeds=seeds,
        folder=folder,
        session=make_session(),
        watch=watch,
        on_results=on_results,
    )


def make_run(seed: int, concat: float, mix: float, folder: str) -> dict[str, Any]:
    curve = [
        {
            "epoch": epoch,
            "losses": [3.0, 2.0, 1.0, 4.0 / epoch],
            "lr": [0.1, 0.2],
            "concat": concat,
            "mix": mix / 2 * epoch,
        }
        for epoch in (1, 2)
    ]
    best = {"best_epoch": 2, "best_mix": mix, "seconds": 61.0, "stages": [50.0, 60.0, 70.0]}
    return {"folder": folder, "seed": seed, "concat": concat, "mix": mix, "curve": curve, **best}


def make_study(table: str = "table4", **rows: list[tuple[float, float]]) -> Study:
    """Rows of (Concat, Mix), one for each seed, on 400 images of 4 classes; "none" and "rmg" have pictures."""
    found = {
        row: [make_run(seed, *pair, folder=f"{row}-seed{seed}") for seed, pair in enumerate(pairs)]
        for row, pairs in rows.items()
    }
    seeds = sorted({run["seed"] for runs in found.values() for run in runs})
    results = {
        "schema": 2,
        "created": "2026-01-02T03:04:05+00:00",
        "data": {
            "name": "cub",
            "classes": 4,
            "class_names": ["wren", "tern", "gull", "<auk>"],
            "train_images": 2999,
            "test_images": 400,
            "protocol": "Birds & <b>beasts</b>.",
        },
        "recipe": {"name": "quick", **Recipe(epochs=2, freeze_epochs=0).to_dict()},
        "weights": "none",
        "environment": {
            "python": "3.11",
            "torch": "2.13",
            "mosaicaug": "0.1.0",
            "device": "cpu: <test>",
            "commit": "1234567",
        },
        "seeds": seeds,
        "tables": {table: found},
    }
    labels = torch.arange(400) % 4
    predictions = {}
    for runs in found.values():
        for run in runs:
            wrong = [torch.arange(400) >= round(4 * run[name]) for name in ("concat", "mix")]
            predictions[run["folder"]] = Predictions(labels, *((labels + one) % 4 for one in wrong))
    pixels = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5)
    previews = {
        "none-seed0": Preview(pixels[None], ("all 4 phases",)),
        "rmg-seed0": Preview(torch.stack([pixels, pixels + 100]), ("phase 1: r = 1", "phase 2: r = 0")),
    }
    shown = {name: one for name, one in previews.items() if name in predictions}
    return Study(results, predictions, shown)


def make_regimes(accuracies: Mapping[tuple[Method, int, int], Sequence[float]]) -> Study:
    """Results of "regimes": accuracies for each seed by method, images a class and epochs; Concat is Mix."""
    points = [Point(*key) for key in accuracies]
    pairs = [[(one, one) for one in values] for values in accuracies.values()]
    rows = dict(zip((point.row for point in points), pairs, strict=True))
    study = make_study("regimes", **rows)
    grid = Grid(*(tuple(dict.fromkeys(values)) for values in zip(*points, strict=True)))
    return replace(study, results={**study.results, "grid": asdict(grid)})


def make_mobile() -> Study:
    """Results of "mobile": plain MobileNetV2, full PMSI, a network that is cheap enough and one that is too large."""
    rows: dict[str, list[tuple[float, float]]] = {
        "baseline": [(60, 60)],
        "full": [(78, 80)],
        "separable 320": [(70, 79)],
        "narrow": [(75, 81)],
    }
    study = make_study("mobile", **rows)
    costs = {
        row: {"parameters": bytes_, "int8_bytes": bytes_, "macs": macs}
        for row, bytes_, macs in (
            ("baseline", 2_500_000, 100_000_000),
            ("full", 10_500_000, 740_000_000),
            ("separable 320", 3_000_000, 110_000_000),
            ("narrow", 4_500_000, 114_000_000),
        )
    }
    return replace(study, results={**study.results, "costs": {"mobile": costs}})
