"""Rows of the training benchmark hold what was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.training import measure
from bench.training.photos import write_photos
from tests.helpers.bench_results import make_training_rows
from tests.helpers.small_run import RECIPE

SMALL = replace(RECIPE, epochs=1)


@pytest.mark.usefixtures("one_worker", "small_backbone")
def test_rows_hold_what_was_measured(photos: Path, tmp_path: Path) -> None:
    write_photos(tmp_path, 8)
    plain_row, our_row = measure.measure_input(tmp_path, SMALL, "cpu", rounds=2)
    assert (plain_row["side"], our_row["side"], our_row["size"], our_row["batch"]) == ("plain", "ours", 32, 4)
    assert len(our_row["epochs"]) == 2
    assert min(our_row["epochs"]) <= our_row["images_per_s"] <= max(our_row["epochs"])
    assert our_row["first_epoch_images_per_s"] > 0
    rows = measure.measure_steps(photos, SMALL, "cpu", ("plain", "32"), rounds=1, epochs=2)
    assert [(row["side"], len(row["epochs"]), row["step_bytes"] > 0) for row in rows] == [
        ("plain", 2, True),
        ("32", 2, True),
    ]
    assert 0 < rows[1]["input_share"] < 1


def test_rows_of_a_complete_run_are_as_many_as_settings() -> None:
    assert [measure.count_rows(device) for device in ("cpu", "cuda")] == [6, 8]
    assert len(list(make_training_rows())) == measure.count_rows("cuda")
