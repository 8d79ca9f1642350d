"""Training tables as Markdown from files of results, for the pages and the report of `gpu_check`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.results import FOLDER, Row

CUB_IMAGES = 187 * 32  # of an epoch: mini-batches of 32 out of 5,994 images, a last smaller one dropped
EPOCHS = 150
INPUT_BAR, STEP_BARS = 5, {"cpu": "input below 3 %", "cuda": "3 times the plain loop, input below 2 %"}
NAMES = {"plain": "published loop, fp32"}


def load(device_type: str, folder: Path = FOLDER) -> tuple[dict[str, Any], list[Row]] | None:
    """Load environment and rows of a complete run on a device type, or of a GPU check; None if there are none."""
    for pattern, kind in (("engine-*.json", "rows"), ("gpu-check-*.json", "engine")):
        for path in sorted(folder.glob(pattern)):
            results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if results["device_type"] == device_type and results.get(kind):
                return results, results[kind]
    return None


def render(folder: Path = FOLDER) -> str:
    """Tables of all device types."""
    parts = []
    for device_type, title in (("cpu", "CPU"), ("cuda", "GPU")):
        found = load(device_type, folder)
        parts.append(f"**{title}**: not measured." if found is None else render_device(title, *found))
    return "\n\n".join(parts) + "\n"


def render_device(title: str, environment: dict[str, Any], rows: Sequence[Row]) -> str:
    """Tables of one device: environment, inputs, steps, and failures."""
    versions = ", ".join(f"{name} {environment['versions'].get(name)}" for name in ("torch", "torchvision"))
    threads = f"{environment['threads']} CPU threads"
    parts = [f"**{title}**: {environment['device']}, {threads}; {versions}; commit {environment['commit']}."]
    timed = [row for row in rows if "failed" not in row]
    parts += [_inputs(timed), _steps(timed, environment["device_type"])]
    parts += [f"{row['task']} at {row['size']} px failed: {row['failed']}" for row in rows if "failed" in row]
    return "\n\n".join(part for part in parts if part) + ("" if rows else "\n\nNothing was timed.")


def _inputs(rows: Sequence[Row]) -> str:
    sides = {(row["size"], row["side"]): row for row in rows if row["task"] == "input"}
    lines = []
    for size in dict.fromkeys(size for size, _ in sides):
        ours, plain = sides.get((size, "ours")), sides.get((size, "plain"))
        if ours is not None and plain is not None:
            later, first = "images_per_s", "first_epoch_images_per_s"
            ratio = f"{ours[later] / plain[later]:.1f}"
            cells = [f"{row[field]:,.0f}" for field in (later, first) for row in (ours, plain)]
            lines.append([f"{size} px, batches of {ours['batch']}", *cells[:2], ratio, *cells[2:]])
    heads = ["input of four phases", "ours, images/s", "plain, images/s", f"ratio (bar: {INPUT_BAR})"]
    return _table([*heads, "ours, first epoch", "plain, first epoch"], lines)


def _steps(rows: Sequence[Row], device_type: str) -> str:
    steps = {row["side"]: row for row in rows if row["task"] == "step"}
    plain = steps.get("plain")
    lines = []
    for side, row in steps.items():
        rate = row["images_per_s"]
        ratio = "-" if plain is None else f"{rate / plain['images_per_s']:.2f}"
        share = f"{100 * row['input_share']:.1f}" if "input_share" in row else "-"
        hours = f"{EPOCHS * CUB_IMAGES / rate / 3600:.1f}" if device_type == "cuda" else "-"
        name = NAMES.get(side, f"ours, {'fp32' if side == '32' else side}")
        title = f"{name}, {row['size']} px, batches of {row['batch']}"
        lines.append([title, f"{rate:,.3g}", ratio, share, f"{row['step_bytes'] / 1e6:,.0f}", hours])
    heads = [f"whole step (bar: {STEP_BARS[device_type]})", "images/s", "x plain", "input, % of time"]
    return _table([*heads, "a step holds, MB", f"{EPOCHS} epochs of CUB, h"], lines)


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Markdown table, numbers right-aligned; empty without lines."""
    rows = [f"| {' | '.join(line)} |" for line in lines]
    marks = ["---"] + ["---:"] * (len(heads) - 1)
    return "\n".join([f"| {' | '.join(heads)} |", f"| {' | '.join(marks)} |", *rows]) if rows else ""
