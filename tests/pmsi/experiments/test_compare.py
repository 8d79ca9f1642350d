"""The comparison: what its folder holds, that it goes on where it stopped, and what it refuses to touch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pmsi.data.dataset import Dataset
from pmsi.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from pmsi.experiments.compare import compare, preview
from pmsi.experiments.folder import check_folder
from pmsi.experiments.run import train_run
from pmsi.experiments.source import Source
from pmsi.recipe import METHODS, Method, Recipe
from pmsi.runtime.checkpoints import load_checkpoint
from tests.helpers.small_run import (
    BATCHES,
    RECIPE,
    Watch,
    catch_inputs,
    make_dataset,
    make_fabric,
    make_trainer,
    name_differences,
)
from tests.helpers.small_run import read_folder as read_bytes

pytestmark = pytest.mark.usefixtures("small_backbone")
Listen = Callable[[Method, int, Recipe], Watch]


def run(
    folder: Path,
    listen: Listen = lambda *_: Watch(),
    *,
    recipe: Recipe = RECIPE,
    methods: tuple[Method, ...] = METHODS,
    seeds: tuple[int, ...] = (0,),
    dataset: Dataset | None = None,
    source: Source | None = None,
) -> dict[str, Any]:
    return compare(
        source or Source(),
        dataset or make_dataset(),
        recipe,
        "tiny",
        methods=methods,
        seeds=seeds,
        folder=folder,
        fabric=make_fabric(),
        watch=listen,
    )


def forbid(method: Method, seed: int, _: Recipe) -> Watch:
    pytest.fail(f"{method}, seed {seed}, is trained again")


def test_folder_of_a_comparison(tmp_path: Path) -> None:
    results = run(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert [row["method"] for row in results["rows"]] == list(METHODS)
    assert results["recipe"] == {"name": "tiny", **RECIPE.to_dict()}
    assert (results["data"]["train_images"], results["data"]["test_images"]) == (12, 6)
    assert torch.__version__.startswith(results["environment"]["torch"])
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(record["method"], record["epoch"]) for record in metrics] == [(m, e) for m in METHODS for e in (1, 2)]
    assert "report.html" in read_bytes(tmp_path)
    for row in results["rows"]:
        (found,) = row["runs"]
        place = tmp_path / f"{row['method']}-seed0"
        assert (found["concat"], found["mix"]) == (found["curve"][-1]["concat"], found["curve"][-1]["mix"])
        assert found["best_mix"] == max(record["mix"] for record in found["curve"])
        assert found["curve"][found["best_epoch"] - 1]["mix"] == found["best_mix"]
        predictions = json.loads((place / "predictions.json").read_text())
        for kind in ("concat", "mix"):
            hits = sum(a == b for a, b in zip(predictions["labels"], predictions[kind], strict=True))
            assert found[kind] == pytest.approx(100 * hits / 6)
        recipe = load_checkpoint(place / "last.ckpt")["identity"]
        assert recipe["recipe.augmentation"] == row["method"]


def test_a_row_is_the_run_that_train_makes(tmp_path: Path) -> None:
    run(tmp_path / "six", methods=("none", "rmg"))
    alone = replace(RECIPE, augmentation="rmg")
    train_run(Source(), make_dataset(), alone, seed=0, folder=tmp_path / "one", fabric=make_fabric(), watch=Watch())
    first, second = (load_checkpoint(tmp_path / place / "last.ckpt") for place in ("six/rmg-seed0", "one"))
    assert name_differences(first, second) == []


@pytest.mark.parametrize("stop", [(1, 2), (2, 1), (2, 3)])
def test_stopped_and_continued_equals_uninterrupted(tmp_path: Path, stop: tuple[int, int]) -> None:
    methods: tuple[Method, ...] = ("none", "snapmix", "rmg")
    whole = run(tmp_path / "whole", methods=methods)

    def press(method: Method, _: int, __: Recipe) -> Watch:
        return Watch(stop if method == "snapmix" else None)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", press, methods=methods)
    half = json.loads((tmp_path / "parts/results.json").read_text())
    assert [len(row["runs"]) for row in half["rows"] if row["method"] in methods] == [1, 0, 0]
    again: list[str] = []

    def listen(method: Method, _: int, __: Recipe) -> Watch:
        again.append(method)
        return Watch()

    parts = run(tmp_path / "parts", listen, methods=methods)
    assert again == ["snapmix", "rmg"]
    assert name_differences(whole, parts) == []
    for method in methods:
        one, other = (load_checkpoint(tmp_path / k / f"{method}-seed0/last.ckpt") for k in ("whole", "parts"))
        assert name_differences(one, other) == []


def test_second_call_trains_nothing(tmp_path: Path) -> None:
    first = run(tmp_path, methods=("none", "jigsaw"))
    second = run(tmp_path, forbid, methods=("none", "jigsaw"))
    assert name_differences(first, second) == []


def test_rows_and_seeds_can_be_added(tmp_path: Path) -> None:
    run(tmp_path, methods=("none",))
    trained: list[tuple[str, int]] = []

    def listen(method: Method, seed: int, _: Recipe) -> Watch:
        trained.append((method, seed))
        return Watch()

    results = run(tmp_path, listen, methods=("rmg", "none"), seeds=(0, 10, 9))
    assert trained == [("rmg", 0), ("none", 10), ("rmg", 10), ("none", 9), ("rmg", 9)]
    runs = {row["method"]: [found["seed"] for found in row["runs"]] for row in results["rows"]}
    assert runs == {m: [0, 9, 10] if m in ("none", "rmg") else [] for m in METHODS}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": replace(RECIPE, dropout=0.1)}, "recipe.dropout is 0.5 there, 0.1 was asked for"),
        ({"dataset": make_dataset(seed=1)}, "data_crc32 is .* there"),
        ({"dataset": make_dataset(train_images=16)}, "train_images is 12 there, 16 was asked for"),
        ({"source": Source(skip_unreadable=True)}, "skip_unreadable is False there, True was asked for"),
    ],
)
def test_another_experiment_is_refused_and_the_old_one_kept(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run(tmp_path, methods=("none",))
    before = read_bytes(tmp_path)
    with pytest.raises(ValueError, match=rf"{tmp_path} belongs to another run: .*{message}.*another --run folder"):
        run(tmp_path, forbid, **change)
    assert read_bytes(tmp_path) == before


def test_folder_of_a_single_run_is_not_a_comparison(tmp_path: Path) -> None:
    train_run(Source(), make_dataset(), RECIPE, seed=0, folder=tmp_path, fabric=make_fabric(), watch=Watch())
    before = read_bytes(tmp_path)
    with pytest.raises(ValueError, match=r"belongs to another run: .*augmentation is 'rmg' there, 'none' was asked"):
        run(tmp_path, forbid)
    assert read_bytes(tmp_path) == before


@pytest.mark.parametrize("rows", [True, False])
def test_folder_with_other_files_is_left_alone(tmp_path: Path, rows: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds other files and no config\.json; choose another --run folder"):
        check_folder(tmp_path, Source(), RECIPE, rows=rows)
    with pytest.raises(ValueError, match=r"holds other files and no config\.json; choose another --run folder"):
        run(tmp_path, forbid)
    assert read_bytes(tmp_path).keys() == {"thesis.tex"}


@pytest.mark.parametrize("scope", ["iteration", "phase", "progressive"])
@pytest.mark.parametrize("method", METHODS)
def test_strips_show_what_the_network_saw(tmp_path: Path, method: Method, scope: Any) -> None:
    """A level is 0.02 standard deviations at most; the strip is rounded to levels."""
    recipe = replace(RECIPE, augmentation=method, mix_scope=scope, mixup_p=1.0, epochs=1)
    trainer = make_trainer(tmp_path, recipe, seed=5)
    seen = catch_inputs(trainer.network)
    trainer.run(Watch())
    assert len(seen) == 4 * BATCHES + 2  # and two batches of the test
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    strip = preview(make_dataset(), recipe, 5)
    for shown, given in zip(strip.chunk(len(strip) // 4), seen[: len(strip) // 4], strict=True):
        assert (shown - (given * std + mean)).abs().max() <= 0.501
    assert len(strip) == (4 if all(torch.equal(seen[0], given) for given in seen[:4]) else 16)
