"""Tables and pictures of studies: every figure comes from what is given, and the three renderings say the same."""

from __future__ import annotations

import base64
import io
import json
import re

import pytest
import torch
from PIL import Image
from rich.console import Console

from pmsi.evaluation.accuracy import Evaluation
from pmsi.evaluation.robustness import Robustness
from pmsi.evaluation.statistics import ClassAccuracy, Comparison, Confusion, Summary
from pmsi.report.figures import encode, show_activations
from pmsi.report.sections import (
    compare_with_paper,
    list_frequent_confusions,
    list_hardest_classes,
    list_robustness,
    list_verdicts,
)
from pmsi.report.table import Table

PART = Table("Birds & beasts", ("name", "count"), (("<wren>", "3"), ("tern", "4")), frozenset({"tern"}), ("A note.",))


def evaluate_to(mix: float) -> Evaluation:
    empty = torch.zeros(0, dtype=torch.int64)
    return Evaluation(mix - 1, mix, (), empty, empty)


def test_a_table_survives_json() -> None:
    assert Table.from_dict(json.loads(json.dumps(PART.to_dict()))) == PART


def test_html_is_escaped_and_marks_rows() -> None:
    page = PART.to_html()
    assert "Birds &amp; beasts" in page
    assert '<tr><th scope="row">&lt;wren&gt;</th><td>3</td></tr>' in page
    assert '<tr class="ours"><th scope="row">tern</th><td>4</td></tr>' in page
    assert "A note." in page
    assert "<table>" in page
    words = Table("c", ("a",), (("b",),), words=True).to_html()
    assert '<table class="words">' in words


def test_terminal_and_markdown_say_the_same() -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(PART.to_rich())
    text = console.export_text()
    assert all(word in text for word in ("Birds & beasts", "<wren>", "3", "tern", "4", "A note."))
    assert PART.to_markdown() == "| name | count |\n|---|---:|\n| <wren> | 3 |\n| tern | 4 |\n"


def test_a_table_of_the_paper_beside_ours() -> None:
    ours = {"none": {"Mix": Summary(83.0, 1.41, 2)}, "rmg": {"Concat": Summary(81.04, None, 1)}}
    part = compare_with_paper(4, ours, labels={"rmg": "RMG"}, marked=["rmg"])
    assert part.head == ("augmentation", "paper Concat", "paper Mix", "ours Concat", "ours Mix")
    assert part.rows[0] == ("baseline", "85.5", "85.9", "not run", "83.0 ± 1.4")
    assert part.rows[5] == ("RMG", "86.6", "87.0", "81.0", "not run")
    assert part.marked == {"RMG"}
    assert part.caption.startswith("Table IV. Accuracy of different data augmentations. Paper: % of CUB")
    part = compare_with_paper(3, {}, columns=["Mix"])
    assert [row[1:] for row in part.rows[:3]] == [("-", "-"), ("-", "-"), ("85.5", "not run")]
    assert compare_with_paper(1, {}).rows[0][1:4] == ("200", "5994", "5794")


def test_printed_changes_are_shown_as_computed() -> None:
    rows = compare_with_paper(7, {}, columns=["CUB baseline", "CUB RMG-PMSI"]).rows
    assert rows[0][1:3] == ("81.5", "87.0")
    assert rows[1][1:3] == ("14.1 (-67.4)", "59.9 (-27.1)")
    assert rows[2][1:3] == ("22.2 (-59.3)", "78.6 (-8.4)")


def test_rows_that_the_paper_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="Table IV has no row 'puzzle'; it has none, cutmix"):
        compare_with_paper(4, {"puzzle": {}})
    with pytest.raises(ValueError, match="Table IV has no column 'S3'; it has Concat, Mix"):
        compare_with_paper(4, {"none": {"S3": Summary(1.0, None, 1)}})
    with pytest.raises(ValueError, match="Table IV has no column 'mix'"):
        compare_with_paper(4, {}, columns=["mix"])


def test_verdicts() -> None:
    found = [
        ("RMG", "none", Comparison(1.26, (0.3, 2.2), 0.95, 0.012, 100, (1, 1))),
        ("jigsaw", "none", Comparison(-2.0, (-3.0, -1.0), 0.95, None, 100, (3, 3))),
        ("mixup", "none", Comparison(0.1, (-1.0, 1.0), 0.95, None, 100, (3, 3))),
    ]
    part = list_verdicts(found)
    assert part.rows == (
        ("RMG vs none", "+1.3", "+0.3 to +2.2", "0.012", "RMG is better"),
        ("jigsaw vs none", "-2.0", "-3.0 to -1.0", "", "jigsaw is worse"),
        ("mixup vs none", "+0.1", "-1.0 to +1.0", "", "not told apart"),
    )
    assert part.head[2] == "interval (95 %)"


def test_hardest_classes_come_first() -> None:
    classes = [ClassAccuracy("a", 9, 90.0), ClassAccuracy("b", 30, 12.4), ClassAccuracy("c", 0, None)]
    part = list_hardest_classes(classes, count=5)
    assert part.rows == (("b", "30", "12"), ("a", "9", "90"))
    assert part.caption == "The 2 hardest of 3 classes."


def test_confusions() -> None:
    assert list_frequent_confusions([Confusion("a", "b", 4 / 3, 12.6)]).rows == (("a", "b", "1.33", "13"),)


def test_changes_are_computed_on_both_sides() -> None:
    found = Robustness(evaluate_to(80.0), {"color_jitter": evaluate_to(61.4), "published_noise": evaluate_to(79.0)})
    part = list_robustness({"RMG": found})
    assert part.head == ("test images", "paper baseline", "paper RMG-PMSI", "ours RMG")
    assert part.rows == (
        ("clean", "81.5", "87.0", "80.0"),
        ("colour jitter", "14.1 (-67.4)", "59.9 (-27.1)", "61.4 (-18.6)"),
        ("Gaussian noise that wraps", "", "", "79.0 (-1.0)"),
    )
    assert "prints -77.4 for colour jitter, CUB baseline; by its own accuracies it is -67.4." in part.notes[1]


def test_models_must_share_their_corruptions() -> None:
    one, other = (Robustness(evaluate_to(80.0), {name: evaluate_to(70.0)}) for name in ("a", "b"))
    with pytest.raises(ValueError, match=r"same corruptions, got \[\('a',\), \('b',\)\]"):
        list_robustness({"RMG": one, "none": other})
    with pytest.raises(ValueError, match="same corruptions, got none"):
        list_robustness({})


def test_pictures_of_each_stage() -> None:
    images = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    page = show_activations(images, [torch.rand(2, 4, 6), torch.ones(2, 1, 1)], ["stage <4>", "stage 5"])
    uris = re.findall(r'src="data:image/png;base64,([^"]*)" width="288" height="96"', page)
    pictures = [Image.open(io.BytesIO(base64.b64decode(uri))) for uri in uris]
    assert [picture.size for picture in pictures] == [(96, 32)] * 3
    assert pictures[0].getpixel((50, 3)) == tuple(images[1, :, 3, 2].tolist())
    assert page.count("stage &lt;4&gt;") == 2  # caption and alternative text
    with pytest.raises(ValueError, match="zip"):
        show_activations(images, [torch.ones(2, 1, 1)], [])


def test_pictures_are_side_by_side_and_small_ones_enlarged() -> None:
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5)
    uri, width, height = encode(images)
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert picture.getpixel((5, 0)) == (60, 80, 100)
    assert (picture.size, width, height) == ((10, 4), 240, 96)
