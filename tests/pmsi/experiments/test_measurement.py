"""Tests of checkpoints: which images they take, and the pictures of their worst errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pmsi.experiments.measurement import choose_source, measure_network
from pmsi.experiments.pictures import keep_errors, read_errors
from pmsi.experiments.run import train_run
from pmsi.experiments.source import Source
from pmsi.models.trained import open_trained
from tests.helpers.small_run import RECIPE, Watch, make_dataset, make_fabric, make_session


@pytest.mark.usefixtures("small_backbone")
def test_a_checkpoint_is_tested_with_its_errors(tmp_path: Path) -> None:
    dataset, source = make_dataset(), Source()
    result = train_run(source, dataset, RECIPE, seed=0, folder=tmp_path, session=make_session(), callback=Watch())
    trained = open_trained(tmp_path / "last.ckpt")
    found, study = measure_network(trained, dataset, source, make_session())
    assert found.mix == result["mix"]
    answers = study.predictions["."].answers
    assert answers is not None
    wrong = int((answers.classes[:, 0] != dataset.test.labels).sum())
    assert wrong > 0  # random pixels
    errors = study.errors
    assert errors is not None
    assert len(errors.truth) == len(errors.images) == len(errors.maps) == wrong
    assert (errors.truth != errors.predicted).all()
    assert (errors.confidences.diff() <= 0).all()
    keep_errors(tmp_path, dataset, RECIPE, make_fabric())
    kept = read_errors(tmp_path)
    assert kept is not None
    assert torch.equal(kept.predicted, errors.predicted)
    other = replace(dataset, classes=("a", "b", "c", "d"))
    with pytest.raises(ValueError, match="knows 3 classes, typefaces has 4"):
        measure_network(replace(trained, named=False), other, source, make_session())
    assert choose_source(trained, tmp_path / "last.ckpt", root=tmp_path).data == "typefaces"
    nowhere = replace(trained, identity={})
    with pytest.raises(ValueError, match=r"--data: .*does not say what it was trained on"):
        choose_source(nowhere, tmp_path / "last.ckpt")
