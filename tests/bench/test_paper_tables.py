"""Tables of the paper from files of results: chosen by name, with the line that says what was run."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import paper_tables
from bench.results import FOLDER
from pmsi.report.study_tables import describe_tables
from pmsi.runtime.files import write_json
from tests.helpers.small_study import make_mobile, make_regimes

BIRDS = "reproduce-cub.json"


def test_tables_are_chosen_by_name() -> None:
    one, both = (paper_tables.render(BIRDS, *names) for names in (["table3"], ["table3", "table4"]))
    assert both.startswith(one.splitlines()[0])
    assert len(both) > len(one)
    assert one.splitlines()[-1] == both.splitlines()[-1]  # what was run
    assert "; a pretrained backbone, seed 0, last epoch; " in one.splitlines()[-1]
    assert len(paper_tables.render(BIRDS, "table3", first_only=True)) < len(one)


def test_what_was_not_run_says_so(tmp_path: Path) -> None:
    assert paper_tables.render("none.json", folder=tmp_path) == "Not run yet.\n"
    assert paper_tables.render(BIRDS, "table99") == "Not run yet.\n"
    assert paper_tables.render_differences("none.json", folder=tmp_path) == "Not run yet.\n"


def test_regimes_have_their_picture_where_there_are_results(tmp_path: Path) -> None:
    picture = tmp_path / "regimes.png"
    assert paper_tables.render_regimes("none.json", "images/regimes.png", tmp_path) == "Not run yet.\n"
    assert not paper_tables.draw_regimes("none.json", picture, tmp_path)
    assert paper_tables.render_regimes(BIRDS, "images/regimes.png") == "Not run yet.\n"
    results = make_regimes({("none", 5, 25): [60], ("rmg", 5, 25): [80]})
    write_json(tmp_path / "regimes.json", describe_tables(results))
    text = paper_tables.render_regimes("regimes.json", "images/regimes.png", tmp_path)
    assert text.startswith("![Accuracy over epochs, by number of training images a class](images/regimes.png)\n")
    assert "\n| 5, 25 | 60.0 | 80.0 | +20.0 (" in text
    assert "\nWith 5 images a class RMG is better than none at every length tried, from 25 epochs on.\n" in text
    assert paper_tables.draw_regimes("regimes.json", picture, tmp_path)
    assert picture.stat().st_size > 10_000


def test_costs_have_their_picture_where_there_are_results(tmp_path: Path) -> None:
    picture = tmp_path / "mobile.png"
    assert paper_tables.render_costs("none.json", "images/mobile.png", folder=tmp_path) == "Not run yet.\n"
    assert not paper_tables.draw_costs("none.json", picture, folder=tmp_path)
    write_json(tmp_path / "mobile.json", describe_tables(make_mobile()))
    text = paper_tables.render_costs("mobile.json", "images/mobile.png", folder=tmp_path)
    assert text.startswith("![Accuracy over multiply-accumulates](images/mobile.png)\n")
    assert "\n| separable 320 | 110 | 1.10 | 3.00 | 70.0 | -10.0 (" in text
    assert paper_tables.draw_costs("mobile.json", picture, folder=tmp_path)
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize("path", sorted(FOLDER.glob("reproduce-*.json")), ids=lambda path: path.stem)
def test_every_file_of_results_can_be_shown(path: Path) -> None:
    assert "\n|---|" in paper_tables.render(path.name)
    assert "\n|---|" in paper_tables.render_differences(path.name)
