"""What ``results.json`` holds, and that those of earlier versions are still read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pmsi.experiments.results import SCHEMA, list_records, list_runs, load_study, read_results
from pmsi.experiments.tables import Row, name_run, table_rows
from pmsi.runtime.files import write_json
from tests.helpers.small_run import make_backbone
from tests.helpers.small_study import SHORT, load, make_study, run_study


@pytest.fixture(autouse=True)
def _small_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmsi.models.registry.make_backbone", lambda *_, **__: make_backbone())


def make_old(results: dict[str, Any], **kind: Any) -> dict[str, Any]:
    """The facts of schema 1, which had no names of classes, with what `compare` or `reproduce` kept of runs."""
    facts = {name: value for name, value in results.items() if name not in ("tables", "schema", "seeds")}
    facts["data"] = {name: value for name, value in facts["data"].items() if name != "class_names"}
    return {**facts, "schema": 1, **kind}


def drop(run: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key != name}


def test_predictions_are_those_that_are_trained(tmp_path: Path) -> None:
    results = run_study(tmp_path, "table3")
    study, rows = load_study(tmp_path), table_rows("table3", Row(SHORT))
    for row, which in (("m", "concat"), ("pmr", "mix")):
        joined = study.join_predictions(rows[row].recipe, results["tables"]["table3"][row])
        assert joined is not None
        stored = json.loads((tmp_path / name_run(rows[row], 0) / "predictions.json").read_text())
        assert joined[1].tolist() == [stored[which]]
        assert torch.equal(joined[0], load(Row(SHORT)).test.labels)
    (tmp_path / name_run(rows["m"], 0) / "predictions.json").unlink()
    assert load_study(tmp_path).join_predictions(rows["m"].recipe, results["tables"]["table3"]["m"]) is None


def test_results_of_the_old_compare_are_read(tmp_path: Path) -> None:
    """Rows in a list, runs in METHOD-seedN without a name, captions of strips."""
    found = run_study(tmp_path, "table4", methods=("none", "rmg"))
    rows = []
    for method, runs in found["tables"]["table4"].items():
        rows.append({"method": method, "runs": [drop(run, "folder") for run in runs]})
        for run in runs:
            shutil.move(tmp_path / run["folder"], tmp_path / f"{method}-seed{run['seed']}")
    write_json(tmp_path / "results.json", make_old(found, experiment="table4", rows=rows, strips={"none": ["phase"]}))
    old = read_results(tmp_path)
    assert (old["schema"], old["seeds"]) == (SCHEMA, [0])
    (run,) = old["tables"]["table4"]["rmg"]
    assert drop(run, "folder") == drop(found["tables"]["table4"]["rmg"][0], "folder")
    study = load_study(tmp_path)
    assert {*study.predictions} == {*study.previews} == {"none-seed0", "rmg-seed0"}
    assert study.classes == ("class 0", "class 1", "class 2")
    assert study.base == SHORT


def test_results_of_the_old_reproduce_are_read(tmp_path: Path) -> None:
    """Runs without their learning curves, which lie in the folders of the runs."""
    found = run_study(tmp_path, "table7")
    tables = {
        name: {row: [drop(run, "curve") for run in runs] for row, runs in rows.items()}
        for name, rows in found["tables"].items()
    }
    old = make_old(found, experiment="reproduce", tables=tables, seeds=[0])
    write_json(tmp_path / "results.json", old)
    assert read_results(tmp_path)["tables"] == found["tables"]
    assert read_results(tmp_path)["robustness"] == found["robustness"]
    shutil.rmtree(tmp_path / found["tables"]["table7"]["pmsi"][0]["folder"])
    assert read_results(tmp_path)["tables"]["table7"]["pmsi"][0]["curve"] == []


def test_results_of_a_newer_version_are_refused_in_one_line(tmp_path: Path) -> None:
    environment = {"mosaicaug": "9.1", "commit": "abc1234"}
    write_json(tmp_path / "results.json", {"schema": 3, "environment": environment})
    with pytest.raises(
        ValueError, match=r"has schema 3, written by pmsi 9\.1, commit abc1234; this version reads 1 and 2"
    ):
        read_results(tmp_path)
    with pytest.raises(ValueError, match="use that version, or choose another --run folder"):
        run_study(tmp_path, "table4")
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"results\.json is damaged .*; remove it"):
        read_results(tmp_path)


def test_shared_runs_are_listed_once() -> None:
    tables = make_study(none=[(80, 82), (81, 84)], rmg=[(79, 81)]).results["tables"]
    both = {**tables, "table3": {"pm": tables["table4"]["none"]}}
    assert [run["folder"] for run in list_runs(both)] == ["none-seed0", "none-seed1", "rmg-seed0"]
    records = list(list_records({"tables": both}))
    assert [(one["table"], one["method"], one["seed"], one["epoch"]) for one in records] == [
        ("table4", method, seed, epoch) for method, seed in (("none", 0), ("none", 1), ("rmg", 0)) for epoch in (1, 2)
    ]
