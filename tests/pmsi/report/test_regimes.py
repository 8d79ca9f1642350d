"""Where a mosaic pays off: points, paired tests and sentences, from results that were never trained."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pmsi.experiments.results import Study
from pmsi.experiments.tables import Point
from pmsi.report.regimes import compare_with_none, describe_crossing, measure_points, regimes_table
from pmsi.report.study_tables import describe_tables
from tests.helpers.small_study import make_regimes


@pytest.fixture
def study() -> Study:
    """RMG loses at 2 epochs and wins at 4 with 5 images a class; with 10 images one of its runs is missing."""
    return make_regimes(
        {
            ("none", 5, 2): [50, 52],
            ("rmg", 5, 2): [30, 34],
            ("none", 5, 4): [60, 62],
            ("rmg", 5, 4): [80, 84],
            ("none", 10, 2): [70],
            ("rmg", 10, 2): [70.5],
            ("none", 10, 4): [80],
        }
    )


def test_points_are_means_with_intervals_that_hold_them(study: Study) -> None:
    points = measure_points(study)
    assert [(point.method, point.per_class, point.epochs) for point in points] == [
        ("none", 5, 2),
        ("rmg", 5, 2),
        ("none", 5, 4),
        ("rmg", 5, 4),
        ("none", 10, 2),
        ("rmg", 10, 2),
        ("none", 10, 4),
    ]
    assert [point.accuracy for point in points] == [51, 32, 61, 82, 70, 70.5, 80]
    last = points[-1]  # of 400 images: 80 % +- 1.96 * 2
    assert last.low == pytest.approx(76.1, abs=0.5)
    assert last.high == pytest.approx(83.9, abs=0.5)
    assert all(point.low < point.accuracy < point.high for point in points)


def test_each_method_is_tested_against_none_at_its_own_point(study: Study) -> None:
    tests = compare_with_none(study)
    assert {point: test.verdict for point, test in tests.items()} == {
        Point("rmg", 5, 2): "worse",
        Point("rmg", 5, 4): "better",
        Point("rmg", 10, 2): "not told apart",
    }
    assert {test.confidence for test in tests.values()} == {1 - 0.05 / 3}


def test_the_table_says_from_where_on_rmg_is_better(study: Study) -> None:
    table = regimes_table(study)
    assert table.head == ("images a class, epochs", "none", "RMG", "RMG minus none", "RMG is")
    assert [(row[0], row[1], row[2], row[3].split()[0], row[4]) for row in table.rows] == [
        ("5, 2", "51.0", "32.0", "-19.0", "worse"),
        ("5, 4", "61.0", "82.0", "+21.0", "better"),
        ("10, 2", "70.0", "70.5", "+0.5", "not told apart"),
        ("10, 4", "80.0", "not run", "-", "-"),
    ]
    assert table.marked == {"5, 4"}
    assert "(98.33 %)" in table.caption
    assert table.notes == (
        "With 5 images a class RMG is better than none from 4 epochs on; worse at 2.",
        "With 10 images a class RMG is better than none at no length tried: not told apart at 2 epochs.",
    )


def test_rows_without_none_have_accuracies_alone() -> None:
    table = regimes_table(make_regimes({("rmg", 5, 2): [50]}))
    assert table.head == ("images a class, epochs", "RMG")
    assert table.rows == (("5, 2", "50.0"),)
    assert table.notes == ()


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        ({}, "RMG and none have not been trained to any same length yet."),
        ({2: "better", 4: "better"}, "RMG is better than none at every length tried, from 2 epochs on."),
        (
            {8: "better", 4: "not told apart", 2: "better", 1: "worse"},
            "RMG is better than none from 8 epochs on; worse at 1, not told apart at 4, better at 2.",
        ),
        (
            {2: "better", 4: "not told apart"},
            "RMG is better than none from no length on: not told apart at 4, better at 2 epochs.",
        ),
        ({2: "worse", 4: "worse"}, "RMG is better than none at no length tried: worse at 2 and 4 epochs."),
    ],
)
def test_sentences_of_all_courses(verdicts: dict[int, str], sentence: str) -> None:
    assert describe_crossing(20, verdicts) == f"With 20 images a class {sentence}"  # type: ignore[arg-type]


def test_values_of_the_picture_are_kept_with_the_tables(study: Study) -> None:
    kept = describe_tables(study)["tables"]["regimes"]
    assert kept["points"] == [point._asdict() for point in measure_points(study)]
    assert kept["parts"] == [regimes_table(study).to_dict()]
    nothing = replace(study, results={**study.results, "tables": {"regimes": {}}})
    assert "regimes" not in describe_tables(nothing)["tables"]
