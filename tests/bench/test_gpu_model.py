"""Model of the kernel: a case from compiled code to a row, waits of a warp, and the published table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.gpu import tables
from bench.gpu.machine_code import Instruction, Wait, list_waits
from bench.gpu.traffic import count_tile_sectors
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


def test_tiles_lie_in_whole_sectors() -> None:
    home, swapped = np.arange(4).reshape(2, 2), np.array([[1, 0], [3, 2]])
    assert count_tile_sectors(home, 4, 64) == count_tile_sectors(swapped, 4, 64) == 4 * 2
    assert count_tile_sectors(home, 4, 96) == 4 * 3  # tiles side by side are read as one
    assert count_tile_sectors(swapped, 4, 96) == 4 * (2 + 2)  # 48 to 96, and 0 to 48
    assert count_tile_sectors(np.array([[2, 3], [1, 0]]), 4, 96) == 2 * 3 + 2 * (2 + 2)


def test_the_kernel_is_within_its_bars() -> None:
    """Ratios of the published model on H200; tiles take no more than the sectors that their rows lie in."""
    bars = {"rmg": 0.95, "jigsaw": 0.95, "cutmix": 1.2, "mixup": 1.2}
    for row in json.loads((ROOT / "bench/results/gpu-model.json").read_text(encoding="utf-8"))["rows"]:
        name, found = row["augmentation"], row["H200"]
        if row["task"] == "pipeline" and name in bars:
            assert found["ratio"] <= bars[name] + 0.005, row
        elif name in ("rmg", "jigsaw", "cutmix"):
            assert found["ratio"] <= max(0.85, 1.025 * found.get("floor", 0)), row
        elif name == "snapmix" and row["dtype"] == "float32" and row["task"] == "augment":
            assert found["ratio"] <= 1.5, row


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
            {
                chip: {"limiter": "L2", "ratio": ratio, "fraction_of_copy": 1.0, "floor": 0.78}
                for chip in ("H100", "H200")
            }
            for ratio in ratios
        ]
        rows = [row | {"level": 3, "size": size} | found for size, found in zip((448, 224), chips, strict=True)]
        (tmp_path / name).write_text(json.dumps({"rows": rows}), encoding="utf-8")
    text = tables.render(tmp_path)
    name, figures = (
        "| augment | RMG, r to 5 | uint8 | nchw |",
        " 100 | L2 | 120 | 0.80 | 0.80 | 0.78 | 120 | 1.50 | 1.50 |\n",
    )
    assert name + figures in text
    timed = [
        {"case": f"augment-rmg3-32x{size}-uint8-nchw-sample", "choice": choice, "of_copy": part}
        for size, choice, part in ((448, "as it is", 0.93), (224, "as it is", 0.84), (224, "1 row", 0.1))
    ]
    (tmp_path / "gpu-check-fast-one.json").write_text(json.dumps({"device": "Fast One", "kernel": timed}))
    text = tables.render(tmp_path)
    assert "| layout | measured, Fast One | % of a copy, H200 |" in text
    assert f"{name} 84..93 |{figures}" in text
