"""One run in its folder: what it leaves there, that it is continued, and whom it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from pmsi.experiments.folder import LOCK, FolderBusyError
from pmsi.experiments.run import train_run
from pmsi.experiments.source import Source
from pmsi.recipe import Recipe
from pmsi.runtime.checkpoints import load_checkpoint, save_checkpoint
from pmsi.runtime.files import write_json
from tests.helpers.small_run import RECIPE, Watch, make_dataset, make_session, name_differences, read_folder

pytestmark = pytest.mark.usefixtures("small_backbone")


def train(folder: Path, callback: Watch | None = None, recipe: Recipe = RECIPE) -> dict[str, object]:
    return train_run(
        Source(), make_dataset(), recipe, seed=0, folder=folder, session=make_session(), callback=callback or Watch()
    )


def test_what_a_run_leaves(tmp_path: Path) -> None:
    result = train(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text()) == result
    names = {"config.json", "result.json", "predictions.json", "preview.npz", "metrics.jsonl", "last.ckpt"}
    assert names <= read_folder(tmp_path).keys()
    predictions = json.loads((tmp_path / "predictions.json").read_text())
    for kind in ("concat", "mix"):
        hits = sum(a == b for a, b in zip(predictions["labels"], predictions[kind], strict=True))
        assert result[kind] == pytest.approx(100 * hits / 6)
    curve = result["curve"]
    assert isinstance(curve, list)
    assert result["best_mix"] == max(record["mix"] for record in curve)
    assert curve[-1]["mix"] == result["mix"]


def test_a_run_that_another_process_trains_is_refused(tmp_path: Path) -> None:
    with FileLock(tmp_path / LOCK), pytest.raises(FolderBusyError, match="another process is training in"):
        train(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {LOCK}


def test_a_run_of_an_older_version_goes_on(tmp_path: Path) -> None:
    """Its identity, in config.json and checkpoint, knows no `mosaic_p`, `width_mult` and `train_per_class`."""
    train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", Watch((2, 2)))
    new = ("recipe.mosaic_p", "recipe.width_mult", "train_per_class")
    config = json.loads((tmp_path / "parts/config.json").read_text())
    older = {name: value for name, value in config.items() if name not in (*new, "written_by")}
    write_json(tmp_path / "parts/config.json", older)
    state = load_checkpoint(tmp_path / "parts/last.ckpt")
    state["identity"] = {name: value for name, value in state["identity"].items() if name not in new}
    del state["written_by"]
    save_checkpoint(tmp_path / "parts/last.ckpt", state)
    train(tmp_path / "parts")
    whole, parts = (load_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "parts"))
    assert not {*new} & parts["identity"].keys()
    assert {line.split(".identity.")[-1] for line in name_differences(whole, parts)} == {*new}


def test_a_checkpoint_of_another_commit_that_does_not_fit_is_refused_and_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Watch((2, 2)))
    state = load_checkpoint(tmp_path / "last.ckpt")
    state["model"]["mlp.first.weight"] = state["model"].pop("mlp.0.weight")
    save_checkpoint(tmp_path / "last.ckpt", {**state, "written_by": "pmsi 9.9 (fedcba)"})
    before = read_folder(tmp_path)
    message = r"last\.ckpt was written by pmsi 9\.9 \(fedcba\), and its model does not fit .*mlp\.0\.weight.*mlp\.first"
    with pytest.raises(ValueError, match=message):
        train(tmp_path)
    assert read_folder(tmp_path) == before


def test_another_run_is_refused_and_the_old_one_kept(tmp_path: Path) -> None:
    train(tmp_path)
    before = read_folder(tmp_path)
    with pytest.raises(ValueError, match=r"belongs to another run: recipe.dropout is 0\.5 there, 0\.1 was asked for"):
        train(tmp_path, recipe=replace(RECIPE, dropout=0.1))
    assert read_folder(tmp_path) == before
