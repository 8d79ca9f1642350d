"""The benchmark: what is measured, that its figures are what they say, and that README shows them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import measure, pages, results
from bench.conftest import choose_path
from bench.throughput import scaling_plot, tables, test_throughput
from bench.throughput.cases import DOORS, DTYPES, LAYOUTS, PEERS, PERS, centre, list_pairs
from bench.throughput.laws import GateError
from bench.throughput.rows import compare_with_copies, index_rows, make_row, make_times
from bench.throughput.sides import SIDES

ROOT = Path(__file__).parents[2]


def test_cases_are_what_is_to_be_measured() -> None:
    cpu, cuda = list_pairs("cpu"), list_pairs("cuda")
    assert set(cpu) < set(cuda)
    for pairs in (cpu, cuda):
        assert len({f"{case.name}-{side}" for case, side in pairs}) == len(pairs)
        assert len(list(itertools.groupby(pairs, key=lambda pair: pair[0]))) == len({case for case, _ in pairs})
    axes = itertools.product(PEERS, (1, 32, 256), (224, 448), DTYPES, LAYOUTS, PERS, ("ours", "ours_out", "copy"))
    for name, batch, size, dtype, layout, per, side in axes:
        assert (centre(name, batch=batch, size=size, dtype=dtype, layout=layout, per=per), side) in set(cuda)
    sides = {(case.augmentation, side) for case, side in cpu if case == centre(case.augmentation)}
    assert sides == {(name, side) for name in PEERS for side in ("ours", "ours_out", "copy", *PEERS[name], *DOORS)}


def test_equal_inputs_are_next_to_each_other() -> None:
    """They are made once, and the largest takes 617 MB."""
    inputs = [(case.task, case.batch, case.size, case.dtype, case.layout) for case, _ in list_pairs("cpu")]
    assert len(list(itertools.groupby(inputs))) == len(set(inputs))


def test_bytes_are_those_that_must_move() -> None:
    pixels = 32 * 3 * 448 * 448
    assert centre("rmg").bytes == pixels * 8
    assert centre("rmg", dtype="uint8").bytes == pixels * 2
    assert centre("rmg", task="pipeline").bytes == pixels * 5
    assert centre("rmg", task="draw").bytes is None


@pytest.mark.parametrize(
    ("seconds", "want"), [(1e-5, (50, 100, 3)), (0.02, (20, 1, 3)), (0.2, (7, 1, 0)), (2.0, (3, 1, 0))]
)
def test_rounds_fit_the_time_of_a_call(seconds: float, want: tuple[int, int, int]) -> None:
    now = 0.0

    def run() -> None:
        nonlocal now
        now += seconds

    assert tuple(measure.plan_rounds(run, lambda: now)) == want


def test_the_peak_is_what_a_call_holds_beside_its_output() -> None:
    images = torch.rand(256, 1024)  # 1 MiB

    def run() -> Tensor:
        parts = [images + 1, images + 2, images + 3]
        return parts[0] * 2

    assert measure.measure_peak(run, "cpu", fresh=True) / 2**20 == pytest.approx(3, abs=0.01)
    assert measure.measure_peak(run, "cpu", fresh=False) / 2**20 == pytest.approx(4, abs=0.01)
    assert measure.measure_peak(lambda: images, "cpu", fresh=False) == 0


FAKE = {"ours": 2.0, "ours_out": 1.2, "copy": 1.0, "kornia": 6.0, "torchvision": 1.0, "timm": 1.98, "dali": 3.0}
FAKE |= {"torchvision_door": 2.1, "timm_door": 2.2, "kornia_door": 2.5}


def fake_results(device_type: str = "cpu") -> dict[str, Any]:
    rows = []
    for case, side in list_pairs("cpu"):
        if side == "loop":
            rows.append(make_row(case, side, failed="GateError: a tile is missing"))
        elif side == "torchvision" and case.per == "sample":
            rows.append(make_row(case, side, skipped="draws once per batch"))
        else:
            seconds = FAKE[side] * 0.01
            found = make_times(case, median=seconds, q1=seconds, q3=seconds, rounds=5)
            if side.startswith("ours"):
                found |= {"peak_extra_bytes": 3 * 2**20, "plan_bytes": 2**20}
            rows.append(make_row(case, side, **found))
    environment = {"device": "Fast One", "device_type": device_type, "threads": 2, "commit": "abc", "versions": {}}
    return {**environment, "rows": rows}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fake = fake_results()
    results.write_results(tmp_path / "throughput-cpu-fast-one.json", fake, compare_with_copies(fake.pop("rows")))
    return tmp_path


def test_rows_hold_what_was_measured(folder: Path) -> None:
    loaded = tables.load("cpu", folder)
    assert loaded is not None
    rows = index_rows(loaded["rows"])
    assert len(rows) == len(list_pairs("cpu"))
    row = rows[centre("rmg", dtype="uint8"), "ours"]
    assert (row["median_ms"], row["rounds"], row["ratio_to_copy"]) == (20.0, 5, 2.0)
    assert row["gb_per_s"] == pytest.approx(32 * 3 * 448**2 * 2 / 0.02 / 1e9, rel=1e-3)
    assert row["images_per_s"] == 1600
    assert rows[centre("rmg", task="draw"), "ours"]["ratio_to_copy"] is None
    assert "ratio_to_copy" not in rows[centre("rmg", per="batch"), "loop"]


def test_tables_show_wins_and_losses(folder: Path) -> None:
    text = tables.render(folder)
    [line] = [line for line in text.splitlines() if line.startswith("| CutMix | float32")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2:6] == ["20", "2.00", "12", "1.20"]
    assert cells[8] == "Kornia 3.0x slower, timm as fast, DALI 1.5x slower"
    assert cells[9] == "Kornia 3.0x slower, torchvision 2.0x faster, timm as fast, DALI 1.5x slower"
    assert "published loop failed" in text
    assert "0 of" in text
    assert "the most is 2.00 MiB" in text
    assert "**GPU**: not measured yet." in text


def test_doors_stand_beside_the_class(folder: Path, tmp_path: Path) -> None:
    lines = tables.render_doors(folder).splitlines()
    assert "| CutMix | uint8 | 20 | 21 (1.05x) | 22 (1.10x) | 25 (1.25x) | 30 (1.50x) |" in lines
    assert lines[3] == "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    (folder / "throughput-cpu-fast-one.json").unlink()
    assert tables.render_doors(tmp_path) == "Not measured yet.\n"


def test_what_was_not_measured_says_so(tmp_path: Path) -> None:
    assert tables.render(tmp_path) == "**CPU**: not measured yet.\n\n**GPU**: not measured yet.\n"
    fake = fake_results("cuda")
    results.write_results(tmp_path / "gpu-check-fast-one.json", fake, compare_with_copies(fake.pop("rows")))
    text = tables.render(tmp_path)
    assert text.startswith("**CPU**: not measured yet.\n\n**GPU**: Fast One, ")


def test_readme_follows_the_results(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pages.PAGES["README.md"], "throughput", lambda: tables.render(folder))
    readme = pages.insert("README.md", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert pages.insert("README.md", readme) == readme
    path = folder / "throughput-cpu-fast-one.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"median_ms": 20.0', '"median_ms": 21.0'), encoding="utf-8"
    )
    assert pages.insert("README.md", readme) != readme


def test_readme_shows_no_picture_that_is_not_there() -> None:
    shown = "docs/scaling.png" in tables.render()
    assert not shown or (ROOT / "docs" / "scaling.png").exists(), "run `make tables`"


def test_the_picture_is_a_function_of_the_results(folder: Path) -> None:
    loaded = tables.load("cpu", folder)
    assert loaded is not None
    pictures = [folder / f"{name}.png" for name in ("one", "two", "three")]
    for path in pictures[:2]:
        scaling_plot.draw(loaded, path)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    index_rows(loaded["rows"])[centre("rmg", level=5), "ours_out"]["median_ms"] = 30.0
    scaling_plot.draw(loaded, pictures[2])
    assert pictures[0].read_bytes() != pictures[2].read_bytes()


def test_a_part_of_the_cases_does_not_pass_for_all() -> None:
    cpu, gpu = ({"device": name, "device_type": kind} for name, kind in (("AMD EPYC", "cpu"), ("NVIDIA H200", "cuda")))
    assert choose_path("throughput", None, cpu, complete=True) == results.FOLDER / "throughput-cpu-amd-epyc.json"
    assert choose_path("throughput", None, gpu, complete=True) == results.FOLDER / "throughput-nvidia-h200.json"
    assert choose_path("throughput", None, cpu, complete=False) is None
    assert choose_path("throughput", Path("here.json"), cpu, complete=True) == Path("here.json")
    assert choose_path("engine", Path("here.json"), cpu, complete=True) == Path("engine-here.json")
    assert choose_path("engine", None, gpu, complete=True) == results.FOLDER / "engine-nvidia-h200.json"


def run_pytest(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    # A run of its own, not a worker of this one, where nothing is timed.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    return subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=False, timeout=300)


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


def test_the_option_names_what_is_missing() -> None:
    done = run_pytest("--benchmark", "-p", "no:benchmark")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.strip() == "ERROR: --benchmark needs pytest-benchmark: pip install 'mosaicaug[bench]'"


def test_without_the_option_nothing_is_timed() -> None:
    done = run_pytest("--collect-only", "bench")
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout + done.stderr


def test_a_side_that_fails_its_gate_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIDES["augment"], "copy", lambda _, batch: lambda: batch.images + 1)
    rows: list[results.Row] = []
    unused: Any = None
    with pytest.raises(GateError, match="the copy differs"):
        test_throughput.test_throughput(centre("rmg"), "copy", "cpu", unused, rows.append)
    [row] = rows
    assert row["failed"] == "GateError: the copy differs from its source"
    assert "median_ms" not in row
