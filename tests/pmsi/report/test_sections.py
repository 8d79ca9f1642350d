"""Tables and sentences of a report: every figure comes from what is given."""

from __future__ import annotations

import pytest
import torch

from pmsi.evaluation.accuracy import Evaluation
from pmsi.evaluation.robustness import Robustness
from pmsi.evaluation.statistics import ClassAccuracy, Comparison, Confusion, Summary
from pmsi.report.sections import (
    PairedTest,
    accuracy_table,
    classes_table,
    compare_with_paper,
    comparison_table,
    confusions_table,
    describe_order,
    hardest_classes_table,
    pointing_table,
    robustness_table,
    runs_table,
    standard_error,
)
from tests.helpers.small_study import make_run


def evaluate_to(mix: float) -> Evaluation:
    empty = torch.zeros(0, dtype=torch.int64)
    return Evaluation(mix - 1, mix, (), empty, empty)


def test_a_table_of_the_paper_beside_ours() -> None:
    ours = {"none": {"Mix": Summary(83.0, 1.41, 2)}, "rmg": {"Concat": Summary(81.04, None, 1)}}
    table = compare_with_paper(4, ours, labels={"rmg": "RMG"}, marked=["rmg"])
    assert table.head == ("augmentation", "paper Concat", "paper Mix", "ours Concat", "ours Mix")
    assert table.rows[0] == ("baseline", "85.5", "85.9", "not run", "83.0 ± 1.4")
    assert table.rows[5] == ("RMG", "86.6", "87.0", "81.0", "not run")
    assert table.marked == {"RMG"}
    assert table.caption.startswith("Table IV. Accuracy of different data augmentations. Paper: % of CUB")
    table = compare_with_paper(3, {}, columns=["Mix"])
    assert [row[1:] for row in table.rows[:3]] == [("-", "-"), ("-", "-"), ("85.5", "not run")]
    assert compare_with_paper(1, {}).rows[0][1:4] == ("200", "5994", "5794")


def test_printed_changes_are_shown_as_computed() -> None:
    rows = compare_with_paper(7, {}, columns=["CUB baseline", "CUB RMG-PMSI"]).rows
    assert rows[0][1:3] == ("81.5", "87.0")
    assert rows[1][1:3] == ("14.1 (-67.4)", "59.9 (-27.1)")
    assert rows[2][1:3] == ("22.2 (-59.3)", "78.6 (-8.4)")


def test_rows_that_the_paper_does_not_have_come_last() -> None:
    table = compare_with_paper(5, {"cnl": {"Concat": Summary(80.0, None, 1)}}, labels={"cnl": "CNL"})
    assert table.rows[-1] == ("CNL", "-", "-", "80.0", "-")
    assert len(table.rows) == 7


def test_columns_that_the_paper_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="Table IV has no column 'S3'; it has Concat, Mix"):
        compare_with_paper(4, {"none": {"S3": Summary(1.0, None, 1)}})
    with pytest.raises(ValueError, match="Table IV has no column 'mix'"):
        compare_with_paper(4, {}, columns=["mix"])


def test_verdicts_stand_beside_the_papers_differences() -> None:
    found = [
        PairedTest("rmg", "none", Comparison(1.26, (0.3, 2.2), 0.95, 0.012, 100, (1, 1)), 1.1),
        PairedTest("jigsaw", "none", Comparison(-2.0, (-3.0, -1.0), 0.95, None, 100, (3, 3)), 0.7),
        PairedTest("blur", "none", Comparison(0.1, (-1.0, 1.0), 0.95, None, 100, (3, 3))),
        PairedTest("mixup", "none", Comparison(0.1, (-1.0, 1.0), 0.95, None, 100, (3, 3)), 0.1),
    ]
    table = comparison_table(found)
    assert table.rows == (
        ("rmg vs none", "+1.1", "+1.3", "+0.3 to +2.2", "0.012", "rmg is better", "same"),
        ("jigsaw vs none", "+0.7", "-2.0", "-3.0 to -1.0", "", "jigsaw is worse", "other"),
        ("blur vs none", "", "+0.1", "-1.0 to +1.0", "", "not told apart", ""),
        ("mixup vs none", "+0.1", "+0.1", "-1.0 to +1.0", "", "not told apart", "not told apart"),
    )
    assert (table.head[1], table.head[3]) == ("paper", "interval (95 %)")
    alone = comparison_table(found[2:3])  # no column of empty cells
    assert alone.head[:2] == ("methods", "difference")
    assert alone.rows == (("blur vs none", "+0.1", "-1.0 to +1.0", "", "not told apart"),)


def test_standard_error_is_binomial() -> None:
    # Mean Mix 82.25 %, 400 images: 100 * sqrt(0.8225 * 0.1775 / 400) = 1.9104.
    assert standard_error([83.0, 81.5], 400) == pytest.approx(1.9104, abs=1e-4)


def test_order_is_said_to_differ_when_it_does() -> None:
    found = {"none": Summary(83.0, 1.4, 2), "rmg": Summary(81.5, None, 1)}
    text = describe_order(4, found, 400, {"none": "none (baseline)"})
    assert "the paper's order is RMG (ours) > none (baseline); here it is none (baseline) > RMG (ours)" in text
    assert "not reproduced" in text
    assert "1.5 points apart" in text
    assert "less than about 5.4 points" in text  # 2 * sqrt(2) * 1.91
    same = {"none": Summary(80.0, None, 1), "rmg": Summary(90.0, None, 1), "blur": Summary(99.0, None, 1)}
    assert "The order is the paper's." in describe_order(4, same, 400)
    assert "no order to compare yet" in describe_order(4, {"rmg": found["rmg"]}, 400)


def test_accuracies_of_one_run() -> None:
    run = make_run(0, 79.0, 80.0, ".")
    table = accuracy_table(run, progressive=True, test_images=400)
    wanted = (("stage 3", "50.00"), ("stage 4", "60.00"), ("stage 5", "70.00"), ("Concat", "79.00"), ("Mix", "80.00"))
    assert table.rows == wanted
    assert "about 2.0 points (400 test images)" in table.notes[0]
    assert accuracy_table(run, progressive=False, test_images=400).rows == (("Concat", "79.00"),)


def test_every_run_is_a_row() -> None:
    table = runs_table({"RMG": [make_run(0, 79.0, 80.0, "a"), make_run(1, 78.0, 81.0, "b")]})
    assert table.rows[1] == ("RMG", "1", "50.0 / 60.0 / 70.0", "78.0", "81.0", "81.0 (2)", "61")
    assert len(table.rows) == 2


def test_all_classes_have_a_row_and_each_method_a_column() -> None:
    first = [ClassAccuracy("wren", 9, 90.4), ClassAccuracy("auk", 0, None)]
    second = [ClassAccuracy("wren", 9, 33.3), ClassAccuracy("auk", 0, None)]
    table = classes_table({"none": first, "RMG": second})
    assert table.head == ("class", "test images", "none", "RMG")
    assert table.rows == (("wren", "9", "90", "33"), ("auk", "0", "-", "-"))


def test_the_pointing_game() -> None:
    table = pointing_table({"images": 512, "points": {"peak of stage N": [81.25, None], "centre": [70.0, 12.34]}})
    assert table.caption == "Pointing game on 512 test images, % that hit."
    assert table.rows == (("peak of stage N", "81.2", "-"), ("centre", "70.0", "12.3"))


def test_hardest_classes_come_first() -> None:
    classes = [ClassAccuracy("a", 9, 90.0), ClassAccuracy("b", 30, 12.4), ClassAccuracy("c", 0, None)]
    table = hardest_classes_table(classes, count=5)
    assert table.rows == (("b", "30", "12"), ("a", "9", "90"))
    assert table.caption == "The 2 hardest of 3 classes."


def test_confusions() -> None:
    assert confusions_table([Confusion("a", "b", 4 / 3, 12.6)]).rows == (("a", "b", "1.33", "13"),)


def test_changes_are_computed_on_both_sides() -> None:
    found = Robustness(evaluate_to(80.0), {"color_jitter": evaluate_to(61.4), "published_noise": evaluate_to(79.0)})
    table = robustness_table({"RMG": found})
    assert table.head == ("test images", "paper baseline", "paper RMG-PMSI", "ours RMG")
    assert table.rows == (
        ("clean", "81.5", "87.0", "80.0"),
        ("colour jitter", "14.1 (-67.4)", "59.9 (-27.1)", "61.4 (-18.6)"),
        ("Gaussian noise that wraps", "", "", "79.0 (-1.0)"),
    )
    assert "prints -77.4 for colour jitter, CUB baseline; by its own accuracies it is -67.4." in table.notes[1]


def test_models_must_share_their_corruptions() -> None:
    one, other = (Robustness(evaluate_to(80.0), {name: evaluate_to(70.0)}) for name in ("a", "b"))
    with pytest.raises(ValueError, match=r"same corruptions, got \[\('a',\), \('b',\)\]"):
        robustness_table({"RMG": one, "none": other})
    with pytest.raises(ValueError, match="same corruptions, got none"):
        robustness_table({})
