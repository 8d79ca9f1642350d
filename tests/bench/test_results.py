"""Files of results: named after the device, one line per row, and those in the repository can be read."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from bench import results
from pmsi.runtime import environment


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


def test_results_that_were_written_leave_a_commit_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "code.py"))
    (tmp_path / "bench" / "results").mkdir(parents=True)
    code, rows = tmp_path / "code.py", tmp_path / "bench" / "results" / "rows.json"
    for path in (code, rows):
        path.write_text("1\n")
    author = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    for words in (["init", "--quiet"], ["add", "."], [*author, "commit", "--quiet", "-m", "Two files"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    commit = results.describe_environment("cpu")["commit"]
    assert len(commit) >= 7
    rows.write_text("2\n")
    assert results.describe_environment("cpu")["commit"] == commit
    assert environment.read_commit() == f"{commit}-dirty"
    code.write_text("2\n")
    assert results.describe_environment("cpu")["commit"] == f"{commit}-dirty"


def test_outside_of_a_checkout_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "code.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert results.describe_environment("cpu")["commit"] == "not a git checkout"


@pytest.mark.parametrize("path", sorted(results.FOLDER.glob("[est]*.json")), ids=lambda path: path.stem)
def test_results_in_the_repository_have_the_head_of_today(path: Path) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored["rows"]
    assert {"device", "device_type", "threads", "commit", "versions"} < stored.keys()
