"""Answers as tables, CSV and JSON lines."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np

from pmsi.deployment.answers import make_answer, render_answers

CLASSES = ("a", "b", "c, d", "e", "f", "g")
ANSWERS = [
    make_answer(Path("one.jpg"), np.array([0.6, 0.2, 0.1, 0.05, 0.03, 0.02], np.float32), CLASSES, 0.5),
    make_answer(Path("two.jpg"), np.array([0.1, 0.2, 0.4, 0.1, 0.1, 0.1], np.float32), CLASSES, 0.5),
]


def test_the_best_five_come_in_order_and_a_weak_best_is_not_sure() -> None:
    assert ANSWERS[0].classes == ("a", "b", "c, d", "e", "f")
    assert [one.verdict for one in ANSWERS] == ["a", "not sure"]


def test_all_forms_hold_the_same() -> None:
    lines = [json.loads(line) for line in render_answers(ANSWERS, "jsonl").splitlines()]
    rows = list(csv.DictReader(io.StringIO(render_answers(ANSWERS, "csv"))))
    for line, row, one in zip(lines, rows, ANSWERS, strict=True):
        assert line["file"] == row["file"] == str(one.path)
        assert line["answer"] == row["answer"] == one.verdict
        assert [best["class"] for best in line["best"]] == [row[f"class_{k}"] for k in range(1, 6)] == list(one.classes)
        assert float(row["confidence_1"]) == line["best"][0]["confidence"]
    table = render_answers(ANSWERS, "table")
    assert "one.jpg" in table
    assert "not sure" in table
    assert "60.0 %" in table
