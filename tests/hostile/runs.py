"""Hostile files in the folders of runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from pmsi.cli.evaluate import run_evaluate
from pmsi.cli.options import Evaluate
from pmsi.experiments.folder import (
    check_folder,
    list_settings,
    lock_folder,
    read_predictions,
    read_result,
    write_identity,
)
from pmsi.experiments.pictures import read_preview
from pmsi.experiments.results import list_finished, load_study
from pmsi.experiments.source import Source
from pmsi.experiments.tables import Row
from pmsi.models.registry import make_network
from pmsi.models.trained import read_recipe
from pmsi.report.page import write_page
from pmsi.runtime.checkpoints import save_checkpoint
from pmsi.runtime.files import write_json
from tests.helpers.dataset_files import write_folder
from tests.helpers.small_run import RECIPE, Watch, make_session, make_trainer
from tests.helpers.small_study import make_run, make_study
from tests.hostile.case import Case


def check_config(content: str | bytes, room: Path) -> None:
    """Go on with a run whose config.json has this content."""
    (room / "config.json").write_bytes(content.encode() if isinstance(content, str) else content)
    check_folder(room, Source(), RECIPE, rows=False)


def change_config(changes: dict[str, Any], room: Path) -> None:
    settings = list_settings(Source(), RECIPE)
    write_json(room / "config.json", {**settings, **changes})
    check_folder(room, Source(), RECIPE, rows=False)
    write_identity(room, settings, make_session())


def change_recipe(changes: dict[str, Any], _: Path) -> None:
    stored = list_settings(Source(), RECIPE)
    read_recipe({**stored, **{f"recipe.{name}": value for name, value in changes.items()}})


def check_pipe(room: Path) -> None:
    os.mkfifo(room / "config.json")
    check_folder(room, Source(), RECIPE, rows=False)


def cut_metrics(room: Path) -> None:
    """The records of a run are kept in its checkpoint too, and its lines are written anew with every epoch."""
    recipe = replace(RECIPE, epochs=1)
    make_trainer(room, recipe).run(Watch())
    path = room / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    trainer = make_trainer(room, recipe)
    trainer._save()
    assert path.read_text() == whole


def read_changed_result(changes: dict[str, Any], room: Path) -> None:
    run = make_run(0, 80, 82, "x-seed0")
    write_json(room / "x-seed0" / "result.json", {**run, **changes})
    read_result(room / "x-seed0")


def read_changed_predictions(changes: dict[str, Any], room: Path) -> None:
    write_json(room / "predictions.json", {"labels": [0, 1], "concat": [0, 1], "mix": [0, 1], **changes})
    read_predictions(room)


def read_answers(room: Path, top: Any) -> None:
    answers = {"top": top, "probabilities": [[1.0], [1.0]], "raw": [1.0, 1.0], "temperature": 1.0}
    read_changed_predictions(answers, room)


def read_changed_study(change: Callable[[dict[str, Any]], object], room: Path) -> None:
    """Make the page of a study whose results.json was changed."""
    results = json.loads(json.dumps(make_study(none=[(80, 82)], rmg=[(79, 81)]).results))
    change(results)
    write_json(room / "results.json", results)
    write_page(load_study(room), room / "report.html")


def read_arrays(write: Callable[[Path], object], room: Path) -> None:
    write(room / "preview.npz")
    read_preview(room)


def claim_array(path: Path) -> None:
    """An array that says it has a terabyte."""
    with path.open("wb") as file:
        np.savez(file, images=np.zeros(8, np.uint8), captions=np.array(["x"]))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(8,), }            ", b"(1099511627776,), }"))


def pickle_arrays(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, images=np.array([{"a": 1}], object), captions=np.array(["x"]))


def list_odd_folders(room: Path) -> None:
    write_json(room / "my-seeds" / "result.json", {})
    assert list_finished(room, Row(RECIPE)) == []


def lock_pipe(room: Path) -> None:
    (room / ".lock").mkdir()
    with lock_folder(room, make_session()):
        pass


def evaluate_changed(changes: dict[str, Any], room: Path) -> None:
    """Test a checkpoint of which facts were changed, under a checksum that fits."""
    source = Source("folder", write_folder(room / "root"))
    identity = {**list_settings(source, RECIPE), "classes": 2, **changes}
    save_checkpoint(room / "last.ckpt", {"identity": identity, "model": make_network(RECIPE, 2).state_dict()})
    run_evaluate(Evaluate(room / "last.ckpt", cache=None), Console(quiet=True))


def _study(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    return partial(read_changed_study, change)


_DAMAGED = "is damaged"
_OTHER = "belongs to another run"
RUNS = (
    Case("config.json that is empty", partial(check_config, ""), _DAMAGED),
    Case("config.json that is cut", partial(check_config, '{"data": "typef'), _DAMAGED),
    Case("config.json that is a list", partial(check_config, "[1]"), _DAMAGED),
    Case("config.json of bytes that are no text", partial(check_config, b'{"data": "\xff"}'), _DAMAGED),
    Case("config.json with NaN", partial(check_config, '{"seed": NaN}'), "NaN is no finite number"),
    Case("config.json with 1e999", partial(check_config, '{"seed": 1e999}'), "1e999 is no finite number"),
    Case("config.json with a name twice", partial(check_config, '{"seed": 0, "seed": 1}'), "'seed' stands there twice"),
    Case("config.json with a number of 5,000 digits", partial(check_config, f'{{"seed": {"9" * 5000}}}'), _DAMAGED),
    Case("config.json with 100,000 lists in each other", partial(check_config, "[" * 100_000), _DAMAGED),
    Case("a pipe in the place of config.json", check_pipe, "is no file but a folder, a pipe or a device"),
    Case("config.json with settings of other types", partial(change_config, {"data": [1], "root": 5}), _OTHER),
    Case("config.json of an experiment that is a list", partial(change_config, {"experiment": []}), _DAMAGED),
    Case("a recipe with a word for a number", partial(change_recipe, {"crop": "448"}), "the recipe has a value of"),
    Case("a recipe with a list for a name", partial(change_recipe, {"backbone": []}), "the recipe has a value of"),
    Case("a recipe with a batch of 0 images", partial(change_recipe, {"batch_size": 0}), "must be above 0, got 0"),
    Case("metrics.jsonl cut in the middle of a line", cut_metrics, then="written anew, whole"),
    Case("result.json without accuracies", partial(read_changed_result, {"mix": None}), "mix must be int or float"),
    Case("result.json with losses of words", partial(read_changed_result, {"stages": ["x"]}), _DAMAGED),
    Case("result.json with a curve of numbers", partial(read_changed_result, {"curve": [1]}), _DAMAGED),
    Case("predictions.json of other lengths", partial(read_changed_predictions, {"mix": [0]}), _DAMAGED),
    Case("predictions.json of fractions", partial(read_changed_predictions, {"mix": [0, 0.5]}), _DAMAGED),
    Case("predictions.json of classes below 0", partial(read_changed_predictions, {"mix": [0, -1]}), _DAMAGED),
    Case("predictions.json of words", partial(read_changed_predictions, {"mix": "01"}), _DAMAGED),
    Case("predictions.json with best classes of one image of two", partial(read_answers, top=[[0]]), _DAMAGED),
    Case("predictions.json with best classes that are words", partial(read_answers, top=[["a"], ["b"]]), _DAMAGED),
    Case("results.json without tables", _study(lambda one: one.pop("tables")), _DAMAGED),
    Case("results.json with data of another type", _study(lambda one: one.update(data=1)), _DAMAGED),
    Case(
        "results.json that names a folder elsewhere",
        _study(lambda one: one["tables"]["table4"]["rmg"][0].update(folder="../../x")),
        "which is not beside it",
    ),
    Case("results.json of schema 99", _study(lambda one: one.update(schema=99)), "has schema 99"),
    Case("results.json of schema 1 without runs", _study(lambda one: one.update(schema=1, rows=[{}])), _DAMAGED),
    Case("preview.npz of other bytes", partial(read_arrays, lambda path: path.write_bytes(b"PK\3\4" * 9)), _DAMAGED),
    Case("preview.npz that says it has a terabyte", partial(read_arrays, claim_array), _DAMAGED),
    Case("preview.npz with pickled objects", partial(read_arrays, pickle_arrays), _DAMAGED, "nothing is unpickled"),
    Case("a folder of another kind called `my-seeds`", list_odd_folders, then="not taken for a run"),
    Case("a folder in the place of the lock", lock_pipe, "cannot be locked"),
    Case(
        "a checkpoint of 2^40 classes",
        partial(evaluate_changed, {"classes": 2**40}),
        "no tensor in it has so many rows",
    ),
    Case("a checkpoint whose classes are a word", partial(evaluate_changed, {"classes": "x"}), _DAMAGED),
    Case("a checkpoint whose classes are named by numbers", partial(evaluate_changed, {"class_names": [1]}), _DAMAGED),
    Case("a checkpoint of data called `../x`", partial(evaluate_changed, {"data": "../x"}), "unknown data set"),
    Case("a checkpoint with the root 5", partial(evaluate_changed, {"root": 5}), _DAMAGED),
)
