"""Tables of a study, from results that were never trained and from ones that were."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from bench import paper_tables
from pmsi.experiments.results import load_study
from pmsi.recipe import METHODS, MODERN
from pmsi.report.study_tables import METHOD_LABELS, describe_tables, list_all_classes, list_tables
from tests.helpers.small_run import make_backbone
from tests.helpers.small_study import SHORT, make_study, run_study


@pytest.fixture
def _small_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmsi.models.registry.make_backbone", lambda *_, **__: make_backbone())


def test_every_method_has_a_label() -> None:
    assert tuple(METHOD_LABELS) == METHODS


def test_a_comparison_has_the_papers_figures_ours_and_paired_tests() -> None:
    study = make_study(none=[(80, 82), (81, 84)], rmg=[(79, 81.5)])
    table, tests, hardest, confusions = list_tables(study)["table4"]
    assert table.rows[0] == ("none (baseline)", "85.5", "85.9", "80.5 ± 0.7", "83.0 ± 1.4")
    assert table.rows[1] == ("CutMix", "85.1", "85.3", "not run", "not run")
    assert table.rows[5] == ("RMG (the paper's)", "86.6", "87.0", "79.0", "81.5")
    assert table.marked == {"RMG (the paper's)"}
    assert tests.rows[0][:3] == ("rmg vs none", "+1.1", "-1.5")
    assert [row[1] for row in hardest.rows] == ["100"] * 4
    assert confusions.rows[0][:2] == ("gull", "<auk>")
    assert confusions.rows[0][2] == "19"  # of the 74 wrong ones, from image 326 on


def test_rows_without_predictions_are_not_tested() -> None:
    study = make_study(none=[(80, 82)], rmg=[(79, 81.5)], jigsaw=[(79, 81)])
    predictions = {name: one for name, one in study.predictions.items() if name != "rmg-seed0"}
    _, tests = list_tables(replace(study, predictions=predictions))["table4"]
    assert [row[0] for row in tests.rows] == ["jigsaw vs none"]


def test_each_seed_is_tested_alone_where_there_are_several() -> None:
    study = make_study(none=[(80, 82), (81, 84)], rmg=[(79, 81.5), (79, 90)], jigsaw=[(79, 81)])
    alone = list_tables(study)["table4"][2]
    assert alone.head == ("methods", "seed 0", "seed 1")
    rmg, jigsaw = alone.rows
    assert (rmg[0], jigsaw[0]) == ("rmg vs none", "jigsaw vs none")
    assert rmg[1].endswith("not told apart")
    assert rmg[2].startswith("+6.0 (")
    assert rmg[2].endswith(", better")
    assert jigsaw[1].startswith("-1.0 (")
    assert jigsaw[2] == ""  # that seed was not run


def test_nothing_finished_is_a_table_of_rows_not_run() -> None:
    (table,) = list_tables(make_study(none=[], rmg=[]))["table4"]
    assert {cell for row in table.rows for cell in row[3:]} == {"not run"}
    assert list_tables(make_study("candidates", rmg=[]))["candidates"] == []
    assert len(list_tables(make_study("candidates", rmg=[(79, 81)]))["candidates"]) == 1
    assert list_tables(make_study("table7", pmsi=[]))["table7"] == []


def test_all_classes_of_all_rows() -> None:
    study = make_study(none=[(80, 82), (81, 84)], rmg=[(79, 81.5)])
    recipes = dict.fromkeys(("none", "rmg"), study.base)
    found = list_all_classes(study, study.results["tables"]["table4"], recipes)
    assert [one.name for one in found["rmg"]] == list(study.classes)
    for row, mix in (("none", 83.0), ("rmg", 81.5)):
        values = [one.accuracy for one in found[row] if one.accuracy is not None]
        assert sum(values) / 4 == pytest.approx(mix)


@pytest.mark.usefixtures("_small_backbones")
def test_tables_show_paper_and_ours_and_go_to_markdown(tmp_path: Path) -> None:
    results = run_study(tmp_path, "table2", "table3", "table7")
    study = load_study(tmp_path)
    tables = list_tables(study)
    table, tests = tables["table3"]
    rows = {row[0]: row[1:] for row in table.rows}
    ours = results["tables"]["table3"]
    assert rows["+ P & M & R"] == ("86.6", "87.0", f"{ours['pmr'][0]['concat']:.1f}", f"{ours['pmr'][0]['mix']:.1f}")
    assert rows["+ M"] == ("85.1", "-", f"{ours['m'][0]['concat']:.1f}", "-")  # its stages are not trained
    assert [row[0] for row in tests.rows] == [f"{row} vs baseline" for row in ("m", "p", "pm", "pr", "pmr")]
    assert [row[1] for row in tests.rows] == ["+3.6", "+4.0", "+4.4", "+5.3", "+5.5"]
    staged = dict(zip(tables["table2"][0].head, tables["table2"][0].rows[2], strict=True))
    shown = [staged[f"ours S{k}"] for k in (3, 4, 5)]
    assert shown == [f"{one:.1f}" for one in results["tables"]["table2"]["3"][0]["stages"]]
    assert (staged["ours S1"], staged["ours S2"]) == ("-", "-")
    assert len(results["robustness"]["pmsi"][0]) == 4
    assert len(tables["table7"][0].rows) == 4

    (tmp_path / "tables.json").write_text(json.dumps(describe_tables(study)))
    markdown = paper_tables.render("tables.json", "table3", folder=tmp_path)
    assert f"\n| + P & M & R | {' | '.join(rows['+ P & M & R'])} |\n" in markdown
    assert "R must work with P." in markdown
    assert "Random pixels. Recipe `tiny`; random weights, seed 0, last epoch; cpu" in markdown
    assert "vs baseline" in markdown
    first = paper_tables.render("tables.json", "table3", first_only=True, folder=tmp_path)
    assert "vs baseline" not in first
    differences = paper_tables.render_differences("tables.json", folder=tmp_path)
    assert "\n| crop | 448 | 64 |\n" in differences


@pytest.mark.usefixtures("_small_backbones")
def test_modern_stands_beside_the_papers_and_beside_none(tmp_path: Path) -> None:
    results = run_study(tmp_path, "modern")
    table, *tests = list_tables(load_study(tmp_path))["modern"]
    assert [row[0] for row in table.rows] == ["rmg", "none", "modern"]
    assert table.rows[1][1] == "augmentation none"
    assert all(key in table.rows[2][1] for key in MODERN if getattr(SHORT, key) != MODERN[key])
    assert table.rows[2][3] == f"{results['tables']['modern']['modern'][0]['mix']:.1f}"
    pairs = [["none vs rmg", "modern vs rmg"], ["rmg vs none", "modern vs none"]]
    assert [[row[0] for row in one.rows] for one in tests] == pairs
    assert all(math.isfinite(float(row[1])) for one in tests for row in one.rows)
