"""Files of results: named after the device, one line per row, and those in the repository can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench import results


def test_files_are_named_after_the_device() -> None:
    cpu, gpu = {"device": "AMD EPYC (x2)", "device_type": "cpu"}, {"device": "NVIDIA H200", "device_type": "cuda"}
    assert results.results_path("throughput", cpu) == results.FOLDER / "throughput-cpu-amd-epyc-x2.json"
    assert results.results_path("engine", gpu) == results.FOLDER / "engine-nvidia-h200.json"


def test_a_file_has_one_line_per_row(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.json"
    results.write_results(path, {"device": "Fast One", "versions": {"torch": "2.11"}}, [{"a": 1.5}, {"b": None}])
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {"device": "Fast One", "versions": {"torch": "2.11"}, "rows": [{"a": 1.5}, {"b": None}]}
    assert [line.strip() for line in text.splitlines()[-4:-2]] == ['{"a": 1.5},', '{"b": null}']


@pytest.mark.parametrize(("value", "want"), [(0.123456, 0.1235), (98765.0, 98760.0), (1e-9, 1e-9), (0.0, 0.0)])
def test_figures_keep_four_digits(value: float, want: float) -> None:
    assert results.round_figure(value) == want


def test_the_environment_names_device_versions_and_commit() -> None:
    found = results.describe_environment("cpu")
    assert (found["device_type"], found["threads"]) == ("cpu", torch.get_num_threads())
    assert found["device"]
    assert found["commit"]
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert set(found["versions"]) == {"python", *results.NAMES}


@pytest.mark.parametrize("path", sorted(results.FOLDER.glob("[et]*.json")), ids=lambda path: path.stem)
def test_results_in_the_repository_have_the_head_of_today(path: Path) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored["rows"]
    assert {"device", "device_type", "threads", "commit", "versions"} < stored.keys()
