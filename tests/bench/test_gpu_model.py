"""Model of the kernel: a case from compiled code to a row, waits of a warp, and the published table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.gpu import tables
from bench.gpu.machine_code import Instruction, Wait, list_waits
from tests.helpers.forked import run_forked

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
CASE = """
import json
from bench.gpu_model import describe, model
from bench.throughput.cases import centre
row = model(centre("rmg", size=224))
describe(row)
print(json.dumps(row))
"""


def test_a_case_becomes_a_row_of_counts() -> None:
    """In a process of its own, where Triton compiles and does not interpret."""
    done = run_forked("-c", CASE, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["sector_efficiency"] == pytest.approx(
        [1, 1], abs=0.02
    )  # rows of 112 bytes lie in whole sectors, or share
    assert row["barriers"] == 0
    assert row["waits"] == 3  # the place of the tiles, the tile, the pixels
    assert row["H100"]["ratio"] == pytest.approx(0.55, abs=0.02)  # L2 of a perfect copy
    assert row["H200"]["limiter"] == "L2"


def test_a_warp_waits_once_for_loads_that_stand_together() -> None:
    def one(name: str, reads: str = "", writes: str = "") -> Instruction:
        return Instruction(name, frozenset(reads.split()), frozenset(writes.split()), 1, guarded=False)

    loads = [one("LDG.E.128", writes="R1"), one("LDG.E.128", writes="R2")]
    stores = [one("STG.E.128", reads="R1"), one("STG.E.128", reads="R2")]
    assert list_waits([*loads, *stores], {1}) == [Wait(32, 0)]
    in_turn = [loads[0], stores[0], loads[1], stores[1]]
    assert list_waits(in_turn, {1}) == [Wait(16, 0), Wait(16, 0)]


def test_the_table_shows_before_and_now(tmp_path: Path) -> None:
    assert tables.render(tmp_path) == "Not modelled yet.\n"
    row = {"task": "augment", "augmentation": "rmg", "dtype": "uint8", "layout": "nchw", "instructions_per_kb": 120.0}
    for name, ratios in (("gpu-model-before.json", (0.9, 1.5)), ("gpu-model.json", (0.7, 0.8))):
        chips = [
            {chip: {"limiter": "L2", "ratio": ratio, "fraction_of_copy": 1.0} for chip in ("H100", "H200")}
            for ratio in ratios
        ]
        rows = [row | {"level": 3, "size": size} | found for size, found in zip((448, 224), chips, strict=True)]
        (tmp_path / name).write_text(json.dumps({"rows": rows}), encoding="utf-8")
    text = tables.render(tmp_path)
    name, figures = "| augment | RMG, r to 5 | uint8 | nchw |", " 100 | L2 | 120 | 0.80 | 0.80 | 120 | 1.50 | 1.50 |\n"
    assert name + figures in text
    timed = [
        {"case": f"augment-rmg3-32x{size}-uint8-nchw-sample", "choice": choice, "of_copy": part}
        for size, choice, part in ((448, "as it is", 0.93), (224, "as it is", 0.84), (224, "1 row", 0.1))
    ]
    (tmp_path / "gpu-check-fast-one.json").write_text(json.dumps({"device": "Fast One", "kernel": timed}))
    text = tables.render(tmp_path)
    assert "| layout | measured, Fast One | % of a copy, H200 |" in text
    assert f"{name} 84..93 |{figures}" in text
