"""Our side of the training benchmark: the inputs of every phase, and a trainer in each setting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.training.ours import OurInput, make_trainer
from tests.helpers.small_run import RECIPE, make_dataset

SMALL = replace(RECIPE, epochs=1)


def test_an_epoch_gives_each_phase_its_images(photos: Path) -> None:
    side = OurInput(photos, SMALL, torch.device("cpu"))
    seen: list[int] = []
    for inputs, labels in side.batches(0):
        shapes = [tuple(images.shape) for images in inputs]
        assert shapes == [(SMALL.batch_size, 3, SMALL.crop, SMALL.crop)] * 4
        seen += labels.tolist()
    assert len(seen) == 8 // SMALL.batch_size * SMALL.batch_size


@pytest.mark.usefixtures("small_backbone")
def test_a_trainer_starts_afresh(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_text("of another run")
    trainer = make_trainer(make_dataset(), SMALL, "cpu", "32", tmp_path)
    assert trainer.history == []
    assert list((tmp_path / "checkpoints").iterdir()) == []
