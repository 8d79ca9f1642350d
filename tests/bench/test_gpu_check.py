"""The one command for a machine with a GPU: what it runs, counts and keeps."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import gpu_check, results
from bench.throughput.cases import centre
from bench.throughput.rows import make_row, make_times


def test_gpu_check_needs_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main() == 1
    assert capsys.readouterr().out == "gpu-check: no CUDA device on this machine\n"


def test_gpu_check_keeps_what_earlier_parts_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = {"device": "Fast One", "device_type": "cuda", "threads": 2, "commit": "abc", "versions": {}}
    times = make_times(centre("cutmix"), median=0.02, q1=0.02, q3=0.02, rounds=5)
    rows = [make_row(centre("cutmix"), "ours", **times)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(results, "describe_environment", lambda _: fake)
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    ran = gpu_check.make_part("tests", "failed", passed=3, failed=1, failures=["test_apply::test_x[cuda]"], tail="red")
    monkeypatch.setattr(gpu_check, "run_tests", lambda _: (ran, rows))

    def crash(_: Path) -> Any:
        raise RuntimeError("the driver is gone")

    timed = {"case": "x", "choice": "as it is", "kernel_us": 20.0, "copy_us": 18.0, "host_us": 40.0, "of_copy": 0.9}
    kernel = gpu_check.make_part("kernel", "passed")
    monkeypatch.setattr(gpu_check, "run_kernel", lambda _: (kernel, [timed | {"modelled_of_copy": {}}]))
    monkeypatch.setattr(gpu_check, "run_benchmark", crash)
    with pytest.raises(RuntimeError, match="the driver is gone"):
        gpu_check.main()
    report = json.loads((tmp_path / "gpu-check-fast-one.json").read_text(encoding="utf-8"))
    assert report["parts"] == [ran, kernel]
    assert report["kernel"][0]["kernel_us"] == 20
    assert report["rows"] == [{**rows[0], "ratio_to_copy": None}]
    summary = (tmp_path / "gpu-check-fast-one.md").read_text(encoding="utf-8")
    assert "- tests: failed (3 passed, 1 failed, 0 skipped, 0 s)" in summary
    assert "`test_apply::test_x[cuda]`" in summary
    assert "| CutMix | float32 | 20 |" in summary
    assert "| x | as it is | 20.0 | 18.0 | 0.90 | - | 40 |" in summary


def test_gpu_check_ends_within_eight_minutes() -> None:
    assert sum(gpu_check.LIMITS.values()) + gpu_check.GRACE * len(gpu_check.LIMITS) <= 8 * 60


def test_gpu_check_keeps_the_end_of_a_kernel_part_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "run_within", lambda *_, **__: (1, 2.0, "no device"))
    part, rows = gpu_check.run_kernel(tmp_path)
    assert (part["status"], part["tail"], rows) == ("failed", "no device", [])
    (tmp_path / "kernel.json").write_text('{"rows": [{"case": "x"}]}')
    assert gpu_check.run_kernel(tmp_path)[1] == [{"case": "x"}]


def test_gpu_check_counts_what_pytest_did(tmp_path: Path) -> None:
    tests = (
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): pass\n"
        "def test_c(): assert 0\n"
        "def test_d(): pytest.skip('why')\n"
    )
    (tmp_path / "test_few.py").write_text(tests)
    part = gpu_check.run_pytest("tests", [str(tmp_path / "test_few.py"), f"--rootdir={tmp_path}"], tmp_path)
    assert (part["status"], part["passed"], part["failed"], part["skipped"]) == ("failed", 2, 1, 1)
    assert part["failures"] == ["test_few::test_c"]
    assert "assert 0" in part["tail"]


def test_gpu_check_stops_a_part_and_keeps_its_words() -> None:
    hang = "import threading; print('begun', flush=True); threading.Event().wait()"
    code, seconds, tail = gpu_check.run_within([sys.executable, "-c", hang], 1.0)
    assert code is None
    assert seconds < 60  # it would hang for ever; a busy machine takes its time to end it
    assert tail.startswith("begun")
    assert gpu_check.run_within([sys.executable, "-c", "raise SystemExit(3)"], 60)[0] == 3


def test_gpu_check_says_that_the_benchmark_did_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    part, rows = gpu_check.run_benchmark(tmp_path)
    assert (part["status"], rows) == ("not run: pytest-benchmark missing", [])


def test_gpu_check_lists_the_tests_that_take_a_device(tmp_path: Path) -> None:
    for name, text in [
        ("test_apply.py", "def test_a(device: torch.device): ...\n"),
        ("test_data.py", "def test_b(): ...\n"),
        ("triton/test_kernel.py", "def test_c(): ...\n"),
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert [path.name for path in gpu_check.list_tests(tmp_path)] == ["test_apply.py", "test_kernel.py"]
    assert {"test_apply.py", "test_cuda.py", "test_kernel.py"} <= {path.name for path in gpu_check.list_tests()}


def test_gpu_check_chooses_tests_on_cuda_and_of_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "run_pytest", lambda _, words, __: {"words": words})
    part, rows = gpu_check.run_tests(tmp_path)
    words: list[str] = part["words"]
    assert rows == []
    assert words[-2] == "-k"
    assert words[-1].startswith("(cuda or ")
    assert "test_kernel" in words[-1].split(" or ")
    assert words[-1].endswith(") and not specialisations")


def test_the_check_on_a_gpu_ends_in_eight_minutes() -> None:
    assert sum(gpu_check.LIMITS.values()) + len(gpu_check.LIMITS) * gpu_check.GRACE <= 480
