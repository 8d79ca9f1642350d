"""The study engine: tables as lists of runs, shared, held by one process at a time, and continued."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from filelock import FileLock

from pmsi.data.dataset import Dataset
from pmsi.experiments.folder import LOCK
from pmsi.experiments.run import train_run
from pmsi.experiments.source import Source
from pmsi.experiments.tables import CHOOSING, Grid, Name, Row, name_run, table_rows
from pmsi.paper import TABLES
from pmsi.recipe import METHODS, Method, Recipe
from pmsi.runtime.checkpoints import load_checkpoint
from pmsi.runtime.files import write_json
from tests.helpers.small_run import (
    RECIPE,
    Watch,
    make_backbone,
    make_dataset,
    make_session,
    name_differences,
    read_folder,
)
from tests.helpers.small_study import SHORT, Silent, load, run_study


@pytest.fixture(autouse=True)
def _small_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmsi.models.registry.make_backbone", lambda *_, **__: make_backbone())


def forbid(title: str, *_: Any) -> Watch:
    pytest.fail(f"{title} is trained again")


def test_folder_of_a_comparison(tmp_path: Path) -> None:
    results = run_study(tmp_path, "table4", recipe=RECIPE)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert list(results["tables"]["table4"]) == list(METHODS)
    assert results["recipe"] == {"name": "tiny", **RECIPE.to_dict()}
    assert (results["data"]["train_images"], results["data"]["test_images"]) == (12, 6)
    assert torch.__version__.startswith(results["environment"]["torch"])
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(record["method"], record["epoch"]) for record in metrics] == [(m, e) for m in METHODS for e in (1, 2)]
    for method, (run,) in results["tables"]["table4"].items():
        assert run["folder"] == name_run(Row(replace(RECIPE, augmentation=method)), 0)
        identity = load_checkpoint(tmp_path / run["folder"] / "last.ckpt")["identity"]
        assert identity["recipe.augmentation"] == method
        assert (tmp_path / run["folder"] / "preview.npz").exists()


def test_a_row_is_the_run_that_train_makes(tmp_path: Path) -> None:
    results = run_study(tmp_path / "study", "table4", recipe=RECIPE, methods=("rmg",))
    (row,) = results["tables"]["table4"]["rmg"]
    train_run(
        Source(),
        make_dataset(),
        RECIPE,
        seed=0,
        folder=tmp_path / "one",
        session=make_session(),
        callback=Watch(),
    )
    first, second = (
        load_checkpoint(place / "last.ckpt") for place in (tmp_path / "study" / row["folder"], tmp_path / "one")
    )
    assert name_differences(first, second) == []


@pytest.mark.parametrize("stop", [(1, 2), (2, 1), (2, 3)])
def test_stopped_and_continued_equals_uninterrupted(tmp_path: Path, stop: tuple[int, int]) -> None:
    methods: tuple[Method, ...] = ("none", "snapmix", "rmg")
    whole = run_study(tmp_path / "whole", "table4", recipe=RECIPE, methods=methods)
    shown: list[dict[str, int]] = []

    def count(results: dict[str, Any]) -> None:
        shown.append({row: len(runs) for row, runs in results["tables"]["table4"].items() if row in methods})

    def press(_: str, recipe: Recipe, __: Path) -> Watch:
        return Watch(stop if recipe.augmentation == "none" else None)

    with pytest.raises(KeyboardInterrupt):
        run_study(tmp_path / "parts", "table4", recipe=RECIPE, methods=methods, watch=press, on_results=count)
    assert shown == [{"none": 0, "snapmix": 1, "rmg": 0}], "SnapMix takes longest"
    assert len(json.loads((tmp_path / "parts/results.json").read_text())["tables"]["table4"]["snapmix"]) == 1
    again: list[str] = []

    def listen(title: str, *_: Any) -> Watch:
        again.append(title)
        return Watch()

    parts = run_study(tmp_path / "parts", "table4", recipe=RECIPE, methods=methods, watch=listen)
    assert again == ["table4 none, seed 0", "table4 rmg, seed 0"]
    assert name_differences(whole, parts) == []
    for method in methods:
        (run,) = whole["tables"]["table4"][method]
        one, other = (load_checkpoint(tmp_path / k / run["folder"] / "last.ckpt") for k in ("whole", "parts"))
        assert name_differences(one, other) == []


def test_a_folder_of_the_old_compare_goes_on(tmp_path: Path) -> None:
    """Runs in METHOD-seedN, one finished and one stopped, of before some settings; results of schema 1."""
    methods: tuple[Method, ...] = ("none", "rmg")
    whole = run_study(tmp_path / "whole", "table4", recipe=RECIPE, methods=methods)
    old = tmp_path / "old"

    def press(_: str, recipe: Recipe, __: Path) -> Watch:
        return Watch((2, 1) if recipe.augmentation == "rmg" else None)

    with pytest.raises(KeyboardInterrupt):
        run_study(old, "table4", recipe=RECIPE, methods=methods, watch=press)
    for method in methods:
        shutil.move(old / name_run(Row(replace(RECIPE, augmentation=method)), 0), old / f"{method}-seed0")
        (old / f"{method}-seed0/preview.npz").unlink(missing_ok=True)
    config = json.loads((old / "config.json").read_text())
    del config["train_per_class"]
    write_json(old / "config.json", {**config, "experiment": "table4"})
    (run,) = json.loads((old / "results.json").read_text())["tables"]["table4"]["none"]
    del run["folder"]
    write_json(old / "results.json", {"schema": 1, "rows": [{"method": "none", "runs": [run]}], "strips": {}})
    titles: list[str] = []

    def listen(title: str, *_: Any) -> Watch:
        titles.append(title)
        return Watch()

    found = run_study(old, "table4", recipe=RECIPE, methods=methods, watch=listen)
    assert titles == ["table4 rmg, seed 0"]  # the finished one is kept
    for method in methods:
        (run,), (wanted,) = (one["tables"]["table4"][method] for one in (found, whole))
        assert run["folder"] == f"{method}-seed0"
        assert name_differences({**run, "folder": ""}, {**wanted, "folder": ""}) == []
        assert (old / run["folder"] / "preview.npz").exists()
    assert not list(old.glob("pmsi-*"))


def test_second_call_trains_nothing(tmp_path: Path) -> None:
    first = run_study(tmp_path, "table4", methods=("none", "jigsaw"))
    second = run_study(tmp_path, "table4", methods=("none", "jigsaw"), watch=forbid)
    assert name_differences(first, second) == []


def test_rows_and_seeds_can_be_added(tmp_path: Path) -> None:
    run_study(tmp_path, "table4", methods=("none",))
    trained: list[str] = []

    def listen(title: str, *_: Any) -> Watch:
        trained.append(title)
        return Silent()

    results = run_study(tmp_path, "table4", methods=("rmg", "none"), seeds=(0, 10, 9), watch=listen)
    wanted = [("rmg", 0), ("none", 10), ("rmg", 10), ("none", 9), ("rmg", 9)]
    assert trained == [f"table4 {method}, seed {seed}" for method, seed in wanted]
    runs = {row: [run["seed"] for run in found] for row, found in results["tables"]["table4"].items()}
    assert runs == {method: [0, 9, 10] if method in ("none", "rmg") else [] for method in METHODS}
    assert results["seeds"] == [0, 9, 10]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": replace(SHORT, dropout=0.1)}, "recipe.dropout is 0.5 there, 0.1 was asked for"),
        ({"load": lambda row: make_dataset(seed=1, side=row.recipe.resize)}, "data_crc32 is .* there"),
        (
            {"load": lambda row: make_dataset(train_images=16, side=row.recipe.resize)},
            "train_images is 12 there, 16 was asked for",
        ),
        ({"source": Source(skip_unreadable=True)}, "skip_unreadable is False there, True was asked for"),
    ],
)
def test_another_study_is_refused_and_the_old_one_kept(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run_study(tmp_path, "table4", methods=("none",))
    before = read_folder(tmp_path)
    with pytest.raises(ValueError, match=rf"{tmp_path} belongs to another run: .*{message}.*another --run folder"):
        run_study(tmp_path, "table4", watch=forbid, **change)
    assert read_folder(tmp_path) == before


def test_folder_of_a_single_run_is_not_a_study(tmp_path: Path) -> None:
    train_run(Source(), make_dataset(), RECIPE, seed=0, folder=tmp_path, session=make_session(), callback=Watch())
    before = read_folder(tmp_path)
    with pytest.raises(ValueError, match=r"belongs to another run: .*augmentation is 'rmg' there, 'none' was asked"):
        run_study(tmp_path, "table4", recipe=RECIPE, watch=forbid)
    assert read_folder(tmp_path) == before


def test_shared_runs_are_trained_once_and_found_again(tmp_path: Path) -> None:
    trained: list[str] = []

    def watch(title: str, *_: Any) -> Watch:
        trained.append(title)
        return Silent()

    results = run_study(tmp_path, "table3", "table4", watch=watch)
    assert len(trained) == 10  # of 12 rows, two are in both
    assert {name: list(rows) for name, rows in results["tables"].items()} == {
        "table3": list(TABLES[3].rows),
        "table4": list(TABLES[4].rows),
    }
    shared = (results["tables"]["table3"]["pmr"], results["tables"]["table4"]["rmg"])
    assert shared[0] == shared[1]
    assert json.loads((tmp_path / "results.json").read_text()) == results
    again = run_study(tmp_path, "table3", "table4", watch=watch)
    assert len(trained) == 10
    assert again["tables"] == results["tables"]
    with pytest.raises(ValueError, match=r"recipe.dropout is 0.5 there, 0.1 was asked for"):
        run_study(tmp_path, "table3", recipe=replace(SHORT, dropout=0.1), watch=watch)


def hold_and_finish(place: Path, theirs: Path, held: Any, go: Any) -> None:
    """In another process: hold the run's folder until the event, then finish the run."""
    with FileLock(place / LOCK):
        held.set()
        go.wait(60)
        for name in ("config.json", "predictions.json", "last.ckpt", "result.json"):
            (place / name).write_bytes((theirs / name).read_bytes())


def test_busy_runs_are_waited_for_and_not_trained_twice(tmp_path: Path) -> None:
    """Another process holds one of two runs until the other one begins."""
    run = name_run(table_rows("table7", Row(SHORT))["baseline"], 0)
    run_study(tmp_path / "theirs", "table7")
    place = tmp_path / "study" / run
    place.mkdir(parents=True)
    (tmp_path / "study/config.json").write_bytes((tmp_path / "theirs/config.json").read_bytes())
    context = multiprocessing.get_context("fork")
    held, go = context.Event(), context.Event()
    other = context.Process(target=hold_and_finish, args=(place, tmp_path / "theirs" / run, held, go))
    other.start()
    assert held.wait(60)

    def watch(title: str, *_: Any) -> Watch:
        if title == "table7 pmsi, seed 0":
            go.set()
        return Silent()

    run_study(tmp_path / "study", "table7", watch=watch)
    other.join(60)
    assert other.exitcode == 0
    found = json.loads((place / "result.json").read_text())
    assert found == json.loads((tmp_path / "theirs" / run / "result.json").read_text())  # times and all


def hold_and_measure(place: Path, kept: str, held: Any, go: Any) -> None:
    """In another process: hold the run's folder until the event, then leave what was measured."""
    with FileLock(place / LOCK):
        held.set()
        go.wait(60)
        (place / "robustness.json").write_text(kept)


def test_robustness_is_measured_by_one_process(tmp_path: Path) -> None:
    run = tmp_path / name_run(table_rows("table7", Row(SHORT))["baseline"], 0)
    first = run_study(tmp_path, "table7")
    (run / "robustness.json").unlink()
    theirs = {name: {"concat": 1.0, "mix": 2.0} for name in first["robustness"]["baseline"][0]}
    context = multiprocessing.get_context("fork")
    held, go = context.Event(), context.Event()
    other = context.Process(target=hold_and_measure, args=(run, json.dumps(theirs), held, go))
    other.start()
    assert held.wait(60)

    def load_and_go(row: Row) -> Dataset:
        dataset = load(row)
        if row.recipe.network == "baseline":  # next it is measured
            go.set()
        return dataset

    again = run_study(tmp_path, "table7", load=load_and_go, watch=forbid)
    other.join(60)
    assert again["robustness"] == {**first["robustness"], "baseline": [theirs]}


def test_weights_that_do_not_fit_a_backbone_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    file = tmp_path / "mobilenet_v2.pth"
    torch.save(torchvision.models.mobilenet_v2().state_dict(), file)
    for weights, error, message in (
        (file, ValueError, "it must hold those of resnet18"),
        (file.parent, FileNotFoundError, r"has no file resnet18\*\.pth"),
    ):
        with pytest.raises(error, match=message):
            run_study(
                tmp_path / "run",
                "table6",
                source=Source(weights=str(weights)),
                load=lambda _: pytest.fail("the data were read"),
                watch=forbid,
            )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", CHOOSING)
def test_settings_are_never_chosen_on_test_images(tmp_path: Path, name: Name) -> None:
    with pytest.raises(ValueError, match=rf"{name}: settings must not be chosen on test images; .* --hold-out"):
        run_study(tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_regimes_train_each_point_once_on_its_own_images(tmp_path: Path) -> None:
    def load_part(row: Row) -> Dataset:
        return make_dataset(train_images=3 * (row.source.train_per_class or 8), side=row.recipe.resize)

    trained: list[str] = []
    stopped = False

    def watch(title: str, recipe: Recipe, _: Path) -> Silent:
        nonlocal stopped
        if title == f"regimes {rows[1]}, seed 0" and not stopped:
            stopped = True
            raise KeyboardInterrupt
        trained.append(title)
        assert f"{recipe.augmentation}, " in title
        assert f" {recipe.epochs} epochs" in title
        return Silent()

    grid = Grid(methods=("none", "rmg"), per_class=(2, 4), epochs=(1,))
    rows = [point.row for point in grid.list_points()]
    with pytest.raises(KeyboardInterrupt):
        run_study(tmp_path, "regimes", grid=grid, load=load_part, watch=watch)
    assert len(trained) == 1
    results = run_study(tmp_path, "regimes", grid=grid, load=load_part, watch=watch)
    assert trained == [f"regimes {row}, seed 0" for row in rows]
    assert list(results["tables"]["regimes"]) == rows
    assert results["grid"] == {"methods": ["none", "rmg"], "per_class": [2, 4], "epochs": [1]}
    for row, per_class in zip(rows, (2, 2, 4, 4), strict=True):
        config = json.loads((tmp_path / results["tables"]["regimes"][row][0]["folder"] / "config.json").read_text())
        assert (config["train_per_class"], config["train_images"]) == (per_class, 3 * per_class)

    more = Grid(methods=("rmg",), per_class=(2,), epochs=(1, 2))
    found = run_study(tmp_path, "regimes", grid=more, load=load_part, watch=watch)
    assert trained[4:] == ["regimes rmg, 2 a class, 2 epochs, seed 0"]
    assert found["tables"]["regimes"][rows[1]] == results["tables"]["regimes"][rows[1]]


def test_regimes_are_refused_before_training_where_images_do_not_fill_a_batch(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 training images do not fill a batch of 4"):
        run_study(
            tmp_path / "run",
            "regimes",
            grid=Grid(per_class=(4, 1)),
            load=lambda row: make_dataset(train_images=3 * (row.source.train_per_class or 8), side=row.recipe.resize),
            watch=forbid,
        )
    assert not (tmp_path / "run").exists()
