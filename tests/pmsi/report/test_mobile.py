"""Networks by cost: points, the table with paired differences, and pages, from results that were never trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pmsi.experiments.results import Study, load_study, read_results
from pmsi.experiments.source import Source
from pmsi.models.cost import measure_cost
from pmsi.models.registry import make_network
from pmsi.report.mobile import changes_table, costs_table, list_cost_points
from pmsi.report.page import write_page
from pmsi.report.study_tables import describe_tables, list_tables, row_recipes
from tests.helpers.small_run import make_backbone
from tests.helpers.small_study import SHORT, make_mobile, run_study


@pytest.fixture
def study() -> Study:
    return make_mobile()


def test_points_have_cost_accuracy_and_interval(study: Study) -> None:
    points = {point.row: point for point in list_cost_points(study, "mobile")}
    assert [(point.ratio, point.megabytes, point.accuracy) for point in points.values()] == [
        (1.0, 2.5, 60),
        (7.4, 10.5, 80),
        (1.14, 4.5, 81),
        (1.1, 3.0, 79),
    ]
    assert [row for row, point in points.items() if point.fits] == ["baseline", "separable 320"]
    assert all(point.low < point.accuracy < point.high for point in points.values())
    assert list_cost_points(study, "table4") == []


def test_both_outputs_are_compared_with_the_full_networks_mix(study: Study) -> None:
    table = costs_table(study, "mobile")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["baseline"][:4] == ("100", "1.00", "2.50", "60.0")
    assert rows["baseline"][4].startswith("-20.0 (")
    assert rows["baseline"][5:] == ("-", "-")  # one output
    assert rows["full"][3:6:2] == ("78.0", "80.0")
    assert rows["full"][4].startswith("-2.0 (")
    assert rows["full"][6] == "-"  # it is the one
    assert rows["separable 320"][4].endswith(", worse")
    assert rows["separable 320"][6].startswith("-1.0 (")
    assert "(99.17 %)" in table.caption  # six comparisons
    assert table.marked == {"separable 320"}
    assert table.notes == ("Within 1.15 times plain MobileNetV2's multiply-accumulates and 4 MB: separable 320.",)


def test_without_the_full_network_nothing_is_compared(study: Study) -> None:
    tables = {"mobile": {**study.results["tables"]["mobile"], "full": []}}
    partial = replace(study, results={**study.results, "tables": tables})
    rows = costs_table(partial, "mobile").rows
    assert [row[0] for row in rows] == ["baseline", "narrow", "separable 320"]
    assert {cell for row in rows for cell in (row[5], row[7])} == {"-"}


def test_changes_of_each_network_are_listed(study: Study) -> None:
    rows = {row[0]: row[1] for row in changes_table(study, "mobile").rows}
    assert rows["narrow"] == "feature_width 256, hidden_width 128"
    assert rows["separable"] == "smooth separable"
    assert not {"baseline", "full"} & rows.keys()


def test_values_of_the_picture_are_kept_and_shown(study: Study, tmp_path: Path) -> None:
    kept = describe_tables(study)["tables"]["mobile"]
    assert kept["points"] == [point._asdict() for point in list_cost_points(study, "mobile")]
    write_page(study, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for words in ("Networks for a phone", "hollow marks", "<svg", "Settings that each network changes"):
        assert words in page, words


def test_a_study_measures_what_its_networks_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmsi.models.registry.make_backbone", lambda *_, **__: make_backbone())
    results = run_study(tmp_path, "mobile-final", source=Source(hold_out=3))
    found = load_study(tmp_path)
    for row, recipe in row_recipes(found, "mobile-final").items():
        assert results["costs"]["mobile-final"][row] == measure_cost(make_network(recipe, 3), SHORT.crop)
    assert [row[0] for row in list_tables(found)["mobile-final"][0].rows] == ["baseline", "full", "mobile"]
    path = tmp_path / "results.json"
    del results["costs"]["mobile-final"]["mobile"]
    path.write_text(json.dumps(results))
    with pytest.raises(ValueError, match="mobile"):
        read_results(tmp_path)
