"""Answers on a page: figures of a known case, a picture for each error, and confusions that sum up."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import torch

from pmsi.evaluation.calibration import rank_answers
from pmsi.experiments.folder import Predictions
from pmsi.experiments.pictures import Errors
from pmsi.experiments.results import Study
from pmsi.report.mistakes import answers_table, show_answers, show_confusions, write_confusions
from tests.helpers.small_study import make_study


def make_tested() -> Study:
    """Forty images of 4 classes, of which the last ten are taken for the next class."""
    labels = torch.arange(40) % 4
    chosen = torch.where(torch.arange(40) < 30, labels, (labels + 1) % 4)
    logits = 6 * torch.nn.functional.one_hot(chosen, 4).float()
    answers = rank_answers(logits, labels)
    errors = Errors(
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        torch.ones(2, 2, 2),
        labels[30:32],
        chosen[30:32],
        answers.probabilities[30:32, 0],
    )
    study = make_study("run", rmg=[(75, 75)])
    predictions = {"rmg-seed0": Predictions(labels, chosen, chosen, answers)}
    return replace(study, predictions=predictions, errors=errors)


def test_top_5_and_calibration_are_in_the_table() -> None:
    found = make_tested().predictions["rmg-seed0"]
    assert found.answers is not None
    table = answers_table(found.answers, found.labels)
    cells = {row[0]: row[1] for row in table.rows}
    assert cells["the best class is right, %"] == "75.00"
    assert cells["one of the best 4 is right, %"] == "100.00"
    before, after = (
        float(cells[f"calibration error {name}, points"]) for name in ("as the network is", "with temperature")
    )
    assert before > after


def test_errors_have_their_pictures_and_names() -> None:
    parts = "".join(show_answers(make_tested()))
    assert parts.count("<img ") == 2
    assert "gull, taken for &lt;auk&gt; (" in parts
    assert 'download="confusions.csv"' in parts
    plain = make_tested()
    assert plain.errors is not None
    without = replace(plain, errors=replace(plain.errors, maps=torch.empty(2, 0, 0)))
    assert "".join(show_answers(without)).count("<img ") == 2


def test_confusions_are_written_as_counts(tmp_path: Path) -> None:
    write_confusions(make_tested(), tmp_path / "a.csv")
    head, *rows = csv.reader((tmp_path / "a.csv").open(encoding="utf-8"))
    assert head == ["class", "wren", "tern", "gull", "<auk>"]
    assert rows[2] == ["gull", "0", "0", "7", "3"]
    assert sum(int(cell) for row in rows for cell in row[1:]) == 40


def test_without_answers_there_is_nothing_to_show(tmp_path: Path) -> None:
    old = make_study("run", rmg=[(79, 81.5)])
    assert show_answers(old) == []
    write_confusions(old, tmp_path / "a.csv")
    assert not list(tmp_path.iterdir())


def test_many_classes_are_drawn_without_names() -> None:
    names = [f"class {number}" for number in range(31)]
    table = torch.eye(31).double().numpy()
    assert "Confusions of 31 classes" in show_confusions(table, names)
