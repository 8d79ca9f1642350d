"""The option `--benchmark`: what it runs, and where the results go."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench import results
from bench.conftest import choose_path
from tests.helpers.forked import run_forked

ROOT = Path(__file__).parents[2]


def test_a_part_of_the_cases_does_not_pass_for_all() -> None:
    cpu, gpu = ({"device": name, "device_type": kind} for name, kind in (("AMD EPYC", "cpu"), ("NVIDIA H200", "cuda")))
    assert choose_path("throughput", None, cpu, complete=True) == results.FOLDER / "throughput-cpu-amd-epyc.json"
    assert choose_path("throughput", None, gpu, complete=True) == results.FOLDER / "throughput-nvidia-h200.json"
    assert choose_path("throughput", None, cpu, complete=False) is None
    assert choose_path("throughput", Path("here.json"), cpu, complete=True) == Path("here.json")
    assert choose_path("engine", Path("here.json"), cpu, complete=True) == Path("engine-here.json")
    assert choose_path("engine", None, gpu, complete=True) == results.FOLDER / "engine-nvidia-h200.json"


def run_pytest(*words: str) -> subprocess.CompletedProcess[str]:
    # A run of its own, not a worker of this one, where nothing is timed.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    return run_forked("-m", "pytest", "-p", "no:cacheprovider", *words, cwd=ROOT, environment=alone)


def test_the_option_times_what_was_selected(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    chosen = "augment-mixup-1x224-uint8-nchw-sample and (copy or kornia)"
    done = run_pytest("--benchmark", "--benchmark-device=cpu", f"--benchmark-out={out}", "-k", chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"results of some cases are in {out}" in done.stdout
    copy, kornia = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert (copy["side"], copy["ratio_to_copy"], copy["bytes"]) == ("copy", 1.0, 2 * 3 * 224 * 224)
    assert 0 < copy["q1_ms"] <= copy["median_ms"] <= copy["q3_ms"]
    assert kornia["side"] == "kornia"
    assert "median_ms" not in kornia
    assert kornia["skipped"]


def test_the_option_names_what_is_missing(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = load_hooks(pytestconfig)
    monkeypatch.setattr(pytestconfig.option, "benchmark", True)
    monkeypatch.setattr(pytestconfig.pluginmanager, "hasplugin", lambda name: name != "benchmark")
    with pytest.raises(
        pytest.UsageError, match=r"--benchmark needs pytest-benchmark: pip install 'mosaicaug\[bench\]'"
    ):
        hooks.pytest_configure(pytestconfig)


def test_without_the_option_nothing_is_timed(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = load_hooks(pytestconfig)
    assert hooks.pytest_ignore_collect(ROOT / "bench/throughput", pytestconfig) is True
    assert hooks.pytest_ignore_collect(ROOT / "tests/bench", pytestconfig) is None
    monkeypatch.setattr(pytestconfig.option, "benchmark", True)
    assert hooks.pytest_ignore_collect(ROOT / "bench/throughput", pytestconfig) is None


def load_hooks(config: pytest.Config) -> Any:
    """Hooks of the project's conftest.py, as pytest loaded them."""
    return next(
        plugin
        for plugin in config.pluginmanager.get_plugins()
        if getattr(plugin, "__file__", None) == str(ROOT / "conftest.py")
    )
