"""Table of the model for docs/benchmarks.md: the slowest case of each augmentation, dtype and layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.results import FOLDER, Row

FILES = ("gpu-model-before.json", "gpu-model.json")
CHIPS = ("H100", "H200")
TITLES = {"rmg": "RMG, r to 5", "jigsaw": "jigsaw, n to 16", "cutmix": "CutMix", "mixup": "MixUp", "snapmix": "SnapMix"}


def render(folder: Path = FOLDER) -> str:
    """Modelled ratios before and after the changes of the kernel, as Markdown."""
    if not all((folder / name).exists() for name in FILES):
        return "Not modelled yet.\n"
    before, after = (_slowest(json.loads((folder / name).read_text(encoding="utf-8"))["rows"]) for name in FILES)
    heads = ["task", "augmentation", "dtype", "layout", "before: instructions per KB", *CHIPS]
    heads += ["now: instructions per KB", *CHIPS, "limit on H200", "of a copy, at most"]
    marks = ["---"] * 4 + ["---:"] * 6 + ["---", "---:"]
    lines = [heads, marks]
    for key, row in after.items():
        task, augmentation, dtype, layout = key
        cells = [task, TITLES[augmentation], dtype, layout]
        for one in (before[key], row):
            cells += [f"{one['instructions_per_kb']:.0f}", *(f"{one[chip]['ratio']:.2f}" for chip in CHIPS)]
        lines.append([*cells, row["H200"]["limiter"], f"{row['H200']['fraction_of_copy']:.0%}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _slowest(rows: list[Row]) -> dict[tuple[str, str, str, str], dict[str, Any]]:
    """Row of the largest ratio on H200 of each task, augmentation, dtype and layout, over sizes and levels."""
    slowest: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for row in rows:
        key = row["task"], row["augmentation"], row["dtype"], row["layout"]
        if key not in slowest or row["H200"]["ratio"] > slowest[key]["H200"]["ratio"]:
            slowest[key] = row
    return dict(sorted(slowest.items()))
