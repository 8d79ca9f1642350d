"""Tables of the model and of the host's time for docs/benchmarks.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.results import FOLDER, Row
from bench.throughput.rows import read_case

FILES = ("gpu-model-before.json", "gpu-model.json")
CHIPS = ("H100", "H200")
TITLES = {"rmg": "RMG, r to 5", "jigsaw": "jigsaw, n to 16", "cutmix": "CutMix", "mixup": "MixUp", "snapmix": "SnapMix"}


def render(folder: Path = FOLDER) -> str:
    """Modelled ratios before and after the changes of the kernel, as Markdown."""
    if not all((folder / name).exists() for name in FILES):
        return "Not modelled yet.\n"
    before, after = (_slowest(json.loads((folder / name).read_text(encoding="utf-8"))["rows"]) for name in FILES)
    measured = read_measured(folder)
    heads = ["task", "augmentation", "dtype", "layout", *(f"measured, {_shorten(device)}" for device in measured)]
    heads += ["% of a copy, H200", "limit", "per KB", *CHIPS, "floor, H200", "before: per KB", *CHIPS]
    lines = [heads, ["---"] * 4 + ["---:"] * (len(heads) - 4)]
    for key, row in after.items():
        task, augmentation, dtype, layout = key
        cells = [task, TITLES[augmentation], dtype, layout]
        for found in measured.values():
            least, most = (round(100 * part) for part in found.get(key, (0.0, 0.0)))
            cells.append("-" if most == 0 else f"{most}" if least == most else f"{least}..{most}")
        cells += [f"{100 * row['H200']['fraction_of_copy']:.0f}", row["H200"]["limiter"]]
        counts = [
            [f"{one['instructions_per_kb']:.0f}", *(f"{one[chip]['ratio']:.2f}" for chip in CHIPS)]
            for one in (row, before[key])
        ]
        least = row["H200"].get("floor")
        cells += [*counts[0], "-" if least is None else f"{least:.2f}", *counts[1]]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def read_measured(folder: Path = FOLDER) -> dict[str, dict[tuple[str, str, str, str], tuple[float, float]]]:
    """Least and greatest part of a copy's speed that was measured, over sizes and levels, by GPU and kind of row."""
    devices: dict[str, dict[tuple[str, str, str, str], tuple[float, float]]] = {}
    model = {read_case(row).name: row for row in json.loads((folder / FILES[1]).read_text(encoding="utf-8"))["rows"]}
    for path in sorted(folder.glob("gpu-check-*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        found = devices.setdefault(report["device"], {})
        for row in report["kernel"]:
            if row["choice"] == "as it is" and row["case"] in model:
                key, part = _key(model[row["case"]]), row["of_copy"]
                least, most = found.get(key, (part, part))
                found[key] = min(least, part), max(most, part)
    return {device: found for device, found in devices.items() if found}


def render_host(folder: Path = FOLDER) -> str:
    """Host time of each augmentation by parts, as Markdown."""
    path = folder / "host.json"
    if not path.exists():
        return "Not measured yet.\n"
    found = json.loads(path.read_text(encoding="utf-8"))
    heads = ["augmentation", "draw, us", "operations", "apply, us", "operations", "draw and apply, us"]
    heads += [f"with PlanBuffer or stream: a step, us (bar: {found['bar']})", "operations", "drawn ahead, us a step"]
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for row in found["rows"]:
        us, counts = row["us"], row["operations"]
        cells = [row["augmentation"], f"{us['draw']:.0f}", str(counts["draw"]), f"{us['apply']:.0f}"]
        cells += [str(counts["apply"]), f"{us['draw_and_apply']:.0f}", f"{us['stream_step']:.0f}"]
        lines.append([*cells, str(counts["stream_step"]), f"{us['stream_ahead']:.0f}"])
    about = f"{found['device']}, one thread; python {found['versions']['python']}, torch {found['versions']['torch']}"
    about += f", triton {found['versions']['triton']}; commit {found['commit']}."
    return about + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _slowest(rows: list[Row]) -> dict[tuple[str, str, str, str], dict[str, Any]]:
    """Row of the largest ratio on H200 of each task, augmentation, dtype and layout, over sizes and levels."""
    slowest: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for row in rows:
        key = _key(row)
        if key not in slowest or row["H200"]["ratio"] > slowest[key]["H200"]["ratio"]:
            slowest[key] = row
    return dict(sorted(slowest.items()))


def _shorten(device: str) -> str:
    """Name of a GPU without its maker and memory: "H100" of "NVIDIA H100 80GB HBM3"."""
    return device.removeprefix("NVIDIA ").split(" ")[0] if device.startswith("NVIDIA ") else device


def _key(row: Row) -> tuple[str, str, str, str]:
    return row["task"], row["augmentation"], row["dtype"], row["layout"]
