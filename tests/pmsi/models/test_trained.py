"""Checkpoints that say what they are, and older ones that say less."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmsi.data.preprocess import describe_preprocessing
from pmsi.models.trained import open_trained
from pmsi.runtime.checkpoints import load_checkpoint, save_checkpoint
from tests.helpers.small_run import RECIPE, make_dataset, make_trainer


@pytest.mark.usefixtures("small_backbone")
def test_a_checkpoint_knows_what_it_is(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, RECIPE)
    trainer.run()
    found = open_trained(tmp_path / "last.ckpt")
    assert (found.classes, found.named, found.recipe) == (make_dataset().classes, True, RECIPE)
    assert found.about["preprocessing"] == describe_preprocessing(RECIPE)
    assert found.about["versions"].keys() >= {"python", "torch", "mosaicaug"}
    assert found.temperature is not None
    assert found.written_by is not None
    assert not found.network.training
    again = make_trainer(tmp_path, RECIPE)  # which finds it finished
    assert again.about["temperature"] == found.temperature


@pytest.mark.usefixtures("small_backbone")
def test_an_older_checkpoint_is_read(tmp_path: Path) -> None:
    make_trainer(tmp_path, RECIPE)._save()
    state = load_checkpoint(tmp_path / "last.ckpt")
    del state["about"], state["written_by"], state["identity"]["class_names"]
    save_checkpoint(tmp_path / "old.ckpt", state)
    found = open_trained(tmp_path / "old.ckpt")
    assert (found.classes, found.named, found.temperature) == (("0", "1", "2"), False, None)


def test_a_file_of_no_run_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.ckpt", {"identity": {}})
    with pytest.raises(ValueError, match="does not say what it was trained on"):
        open_trained(tmp_path / "a.ckpt")
