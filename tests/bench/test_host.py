"""Host time by a driver that launches nothing: launches are counted, and a step of a stream draws nothing."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from bench.gpu import tables
from bench.gpu.stub_driver import FOLDER, run_stubbed
from bench.host import main

pytest.importorskip("triton")


def test_a_step_launches_once_and_a_stream_takes_no_operation() -> None:
    done = run_stubbed("tests.helpers.stubbed_steps", [], capture_output=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["launches"] == found["steps"]
    assert found["operations"]["stream_step"] == 0
    assert found["operations"]["apply"] <= 6


def test_the_benchmark_starts_a_stubbed_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setattr("bench.host.run_stubbed", lambda *_: subprocess.CompletedProcess([], 7))
    assert main() == 7
    assert FOLDER not in os.environ


def test_the_table_shows_the_parts(tmp_path: Path) -> None:
    assert tables.render_host(tmp_path) == "Not measured yet.\n"
    us = {"draw": 60.0, "pack": 8.0, "apply": 40.0, "draw_and_apply": 95.4, "stream_step": 35.0, "stream_ahead": 70.0}
    operations = {"draw": 19, "pack": 2, "apply": 2, "draw_and_apply": 21, "stream_step": 0, "stream_ahead": 23}
    row = {"augmentation": "CutMix", "us": us, "operations": operations}
    head = {"device": "A", "commit": "c", "versions": {"python": "1", "torch": "2", "triton": "3"}, "bar": 100}
    (tmp_path / "host.json").write_text(json.dumps(head | {"rows": [row]}))
    assert "| CutMix | 60 | 19 | 40 | 2 | 95 | 35 | 0 | 70 |" in tables.render_host(tmp_path)
