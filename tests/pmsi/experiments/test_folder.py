"""A run's folder: whose it is, who may train there, and folders that earlier versions wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from pmsi.data.dataset import Dataset
from pmsi.experiments.folder import (
    LOCK,
    FolderBusyError,
    check_folder,
    list_settings,
    locate_run,
    lock_folder,
    make_identity,
    match_older,
    read_predictions,
    write_identity,
)
from pmsi.experiments.source import Source
from pmsi.experiments.tables import Row, name_run
from pmsi.models.trained import read_recipe
from pmsi.recipe import RECIPES
from pmsi.runtime.environment import name_version
from pmsi.runtime.files import write_json
from tests.helpers.small_run import RECIPE, make_dataset, make_session


@pytest.mark.parametrize("rows", [True, False])
def test_folder_with_other_files_is_left_alone(tmp_path: Path, rows: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds other files and no config\.json; choose another --run folder"):
        check_folder(tmp_path, Source(), RECIPE, rows=rows)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_settings_that_an_older_folder_does_not_know_must_have_their_defaults(tmp_path: Path) -> None:
    """As if `train_per_class`, `mosaic_p` and `width_mult` had come after the folder."""
    stored = list_settings(Source(), replace(RECIPE, augmentation="none"))
    del stored["train_per_class"], stored["recipe.mosaic_p"], stored["recipe.width_mult"]
    write_json(tmp_path / "config.json", stored)
    check_folder(tmp_path, Source(), RECIPE, rows=True)
    for source, recipe, message in (
        (Source(train_per_class=2), RECIPE, "train_per_class is None there, 2 was asked for"),
        (Source(), replace(RECIPE, mosaic_p=0.5), r"recipe.mosaic_p is None there, 0\.5 was asked for"),
        (Source(), replace(RECIPE, width_mult=0.5), r"recipe.width_mult is None there, 0\.5 was asked for"),
        (Source(), replace(RECIPE, dropout=0.1), r"recipe.dropout is 0\.5 there, 0\.1 was asked for"),
    ):
        with pytest.raises(ValueError, match=f"belongs to another run: {message}"):
            check_folder(tmp_path, source, recipe, rows=True)


def test_an_older_folder_keeps_the_identity_it_has(tmp_path: Path) -> None:
    now = list_settings(Source(), RECIPE)
    stored = {name: value for name, value in now.items() if name not in ("recipe.mosaic_p", "recipe.width_mult")}
    write_json(tmp_path / "config.json", stored)
    assert write_identity(tmp_path, now, make_session()) == stored
    assert json.loads((tmp_path / "config.json").read_text()) == stored
    assert match_older(now, stored) == stored
    assert match_older(now, now) == now


def test_a_folder_says_which_version_began_it(tmp_path: Path) -> None:
    """That is no part of its identity: another version goes on, or says in one line why not."""
    now, session = list_settings(Source(), RECIPE), make_session()
    assert write_identity(tmp_path, now, session) == now
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == {**now, "written_by": name_version()}
    write_json(tmp_path / "config.json", {**config, "written_by": "pmsi 9.9 (fedcba)"})
    check_folder(tmp_path, Source(), RECIPE, rows=False)
    assert write_identity(tmp_path, now, session) == now
    write_json(tmp_path / "config.json", {**config, "written_by": "pmsi 9.9 (fedcba)", "recipe.colour": 1})
    message = r"another run, of pmsi 9\.9 \(fedcba\) .*: recipe\.colour is 1 there, which this version does not know\."
    with pytest.raises(ValueError, match=message):
        check_folder(tmp_path, Source(), RECIPE, rows=False)
    with pytest.raises(ValueError, match=message):
        write_identity(tmp_path, now, session)


@pytest.mark.parametrize("kind", ["table4", "reproduce", "study"])
def test_one_engine_continues_the_folders_of_both_old_ones(tmp_path: Path, kind: str) -> None:
    identity = list_settings(Source(), replace(RECIPE, augmentation="none"))
    write_json(tmp_path / "config.json", {"experiment": kind, **identity})
    write_identity(tmp_path, {"experiment": "study", **identity}, make_session())
    assert json.loads((tmp_path / "config.json").read_text())["experiment"] == kind


def test_recipes_are_read_with_defaults_for_what_is_missing() -> None:
    recipe = RECIPES["quick"]
    stored = {f"recipe.{name}": value for name, value in recipe.to_dict().items() if name != "width_mult"}
    assert read_recipe({"data": "cub", **stored}) == recipe
    assert read_recipe(recipe.to_dict(), "") == recipe
    with pytest.raises(ValueError, match="the recipe has a setting 'colour', of another version of pmsi"):
        read_recipe({**stored, "recipe.colour": 1})
    with pytest.raises(ValueError, match=r"the recipe has a value of another version of pmsi .*; use that version"):
        read_recipe({**stored, "recipe.crop": "448"})
    with pytest.raises(ValueError, match=r"'colour', of pmsi 9\.9 \(fedcba\); use that version"):
        read_recipe({**stored, "recipe.colour": 1}, written_by="pmsi 9.9 (fedcba)")


def test_runs_are_found_by_what_their_config_says(tmp_path: Path) -> None:
    """`pmsi compare` named its folders METHOD-seedN; a new setting gives a new digest."""
    row = Row(RECIPE)
    new = tmp_path / name_run(row, 0)
    assert locate_run(tmp_path, row, 0) == new
    identity = {**list_settings(Source(), RECIPE), "seed": 0}
    del identity["recipe.mosaic_p"], identity["recipe.width_mult"], identity["train_per_class"]
    write_json(tmp_path / "rmg-seed0" / "config.json", identity)
    write_json(tmp_path / "none-seed0" / "config.json", {**identity, "recipe.augmentation": "none"})
    write_json(tmp_path / "odd-seed0" / "config.json", {**identity, "recipe.colour": 1})
    assert locate_run(tmp_path, row, 0).name == "rmg-seed0"
    assert locate_run(tmp_path, Row(replace(RECIPE, augmentation="none")), 0).name == "none-seed0"
    for other in (replace(RECIPE, mosaic_p=0.5), replace(RECIPE, width_mult=0.5)):
        assert locate_run(tmp_path, Row(other), 0).name.startswith("pmsi-rmg-")
    assert locate_run(tmp_path, row, 1) == tmp_path / name_run(row, 1)
    few = Row(RECIPE, Source(train_per_class=2))
    assert locate_run(tmp_path, few, 0) == tmp_path / name_run(few, 0)
    write_json(tmp_path / "few-seed0" / "config.json", {**identity, "train_per_class": 2})
    assert locate_run(tmp_path, few, 0).name == "few-seed0"
    new.mkdir()
    assert locate_run(tmp_path, row, 0) == new


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    left = tmp_path / ".last.ckpt.0123.part"
    left.touch()
    with (
        FileLock(tmp_path / LOCK),
        pytest.raises(FolderBusyError, match=r"another process is training in .*; wait for it, or choose another"),
        lock_folder(tmp_path, make_session()),
    ):
        pytest.fail("it was held")
    assert left.exists()  # theirs, as it may be
    with lock_folder(tmp_path, make_session()):
        assert not left.exists()  # of a process that was killed


def test_predictions_that_are_missing_are_none(tmp_path: Path) -> None:
    assert read_predictions(tmp_path) is None
    write_json(tmp_path / "predictions.json", {"labels": [0, 1], "concat": [1, 1], "mix": [0, 1]})
    found = read_predictions(tmp_path)
    assert found is not None
    assert (found.labels.tolist(), found.concat.tolist(), found.mix.tolist()) == ([0, 1], [1, 1], [0, 1])


def test_a_folder_is_told_by_labels_and_not_by_places(tmp_path: Path) -> None:
    """Clusters give each job another scratch folder; and an edited table must not go on as if nothing was."""
    dataset, session = make_dataset(), make_session()
    run = tmp_path / "run"

    def identify(dataset: Dataset, root: str, weights: str = "none") -> dict[str, Any]:
        (tmp_path / root).mkdir(exist_ok=True)
        source = Source("folder", tmp_path / root, weights=weights)
        check_folder(run, source, RECIPE, rows=False)
        return write_identity(run, make_identity(source, dataset, RECIPE, session.fabric), session)

    first = identify(dataset, "job1")
    moved = identify(dataset, "job2")
    assert moved == {**first, "root": str(tmp_path / "job2")}
    train = replace(dataset.train, labels=(dataset.train.labels + 1) % 3)
    with pytest.raises(ValueError, match=r"belongs to another run: labels_crc32 is [0-9]+ there"):
        identify(replace(dataset, train=train), "job1")
    with pytest.raises(ValueError, match=r"belongs to another run: class_names\[1\] is 'b' there, 'x' was asked for"):
        identify(replace(dataset, classes=("a", "x", "c")), "job1")
    older = {name: value for name, value in first.items() if name not in ("class_names", "labels_crc32")}
    write_json(run / "config.json", older)
    assert identify(dataset, "job1") == older


def test_weights_are_told_by_their_bytes(tmp_path: Path) -> None:
    for name, content in (("a.pth", b"1"), ("b.pth", b"1"), ("c.pth", b"2")):
        (tmp_path / name).write_bytes(content)
    stored = list_settings(Source(weights=str(tmp_path / "a.pth")), RECIPE)
    write_json(tmp_path / "run/config.json", stored)
    check_folder(tmp_path / "run", Source(weights=str(tmp_path / "b.pth")), RECIPE, rows=False)
    for weights in (str(tmp_path / "c.pth"), "none", str(tmp_path / "missing.pth")):
        with pytest.raises(ValueError, match=r"belongs to another run: weights is 'a.pth "):
            check_folder(tmp_path / "run", Source(weights=weights), RECIPE, rows=False)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b""])
def test_a_damaged_config_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config.json is damaged.*; remove it, or choose another --run folder"):
        check_folder(tmp_path, Source(), RECIPE, rows=False)
