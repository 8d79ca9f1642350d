"""Throughput tables as Markdown from files of results, for the pages and the report of `gpu_check`."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.results import FOLDER, Row
from bench.throughput.cases import PEERS, PERS, Case, centre
from bench.throughput.rows import has_times, index_rows

TITLES = {"rmg": "RMG, r=3", "jigsaw": "jigsaw, n=8", "cutmix": "CutMix", "mixup": "MixUp", "snapmix": "SnapMix"}
LIBRARIES = {"kornia": "Kornia", "torchvision": "torchvision", "timm": "timm", "dali": "DALI", "loop": "published loop"}
MIB = 2**20

Rows = dict[tuple[Case, str], Row]


def load(device_type: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """Load the results of a complete run on a device type, or of a GPU check; None if there are none."""
    for pattern in ("throughput-*.json", "gpu-check-*.json"):
        for path in sorted(folder.glob(pattern)):
            results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if results["device_type"] == device_type and results["rows"]:
                return results
    return None


def render(folder: Path = FOLDER) -> str:
    """Tables of all device types."""
    parts = []
    for device_type, title in (("cpu", "CPU"), ("cuda", "GPU")):
        results = load(device_type, folder)
        parts.append(f"**{title}**: not measured yet." if results is None else render_device(title, results))
        if results is not None and device_type == "cpu":
            parts.append("![Cost over r and n](images/scaling.png)\n\n*Mosaics and jigsaws of more and more tiles.*")
    return "\n\n".join(parts) + "\n"


def render_summary(folder: Path = FOLDER) -> str:
    """Table of README: our time for each augmentation, beside a copy and the fastest other library."""
    results = load("cpu", folder)
    if results is None:
        return "Not measured yet.\n"
    rows = index_rows(results["rows"])
    heads = ["augmentation"]
    lines = [[TITLES[name]] for name in PEERS]
    for dtype in ("uint8", "float32"):
        heads += [f"{dtype}: ours", "copy", "best other"]
        for line, name in zip(lines, PEERS, strict=True):
            case = centre(name, dtype=dtype)
            fresh, ready, copy = (
                _show(rows.get((case, side)), "median_ms")[0] for side in ("ours", "ours_out", "copy")
            )
            peers = itertools.product(LIBRARIES.items(), (replace(case, per=per) for per in PERS))
            times = [(rows.get((same, peer), {}).get("median_ms"), title) for (peer, title), same in peers]
            best = min(((time, title) for time, title in times if time), default=None)
            line += [f"{ready} ({fresh})", copy, f"{best[0]:.3g} {best[1]}" if best else "-"]
    title = (
        "Milliseconds for 32 images of 448 px, a draw for each, into a ready buffer (in brackets: into fresh memory); "
        f"{results['device']}, {results['threads']} CPU threads:"
    )
    return _table(title, heads, lines, last=0) + "\n"


def render_doors(folder: Path = FOLDER) -> str:
    """Table of the time of each library's adapter beside the class itself, for docs/which_pipeline.md."""
    results = load("cpu", folder)
    if results is None:
        return "Not measured yet.\n"
    rows = index_rows(results["rows"])
    doors = {"torchvision_door": "`V2Transform`", "timm_door": "timm", "kornia_door": "Kornia", "dali": "DALI"}
    heads = ["augmentation", "dtype", "the class, ms", *doors.values()]
    lines = []
    for name, dtype in itertools.product(PEERS, ("float32", "uint8")):
        case = centre(name, dtype=dtype)
        ours = rows.get((case, "ours"))
        cells = _show(ours, "median_ms")
        for door in doors:
            row = rows.get((case, door))
            if ours is None or row is None or not (has_times(ours) and has_times(row)):
                cells.append("-")
            else:
                cells.append(f"{row['median_ms']:.3g} ({row['median_ms'] / ours['median_ms']:.2f}x)")
        lines.append([TITLES[name], dtype, *cells])
    title = (
        f"32 images of 448 px and their labels, a draw for each, in ms (and times the class alone); "
        f"{results['device']}, {results['threads']} CPU threads, commit {results['commit']}:"
    )
    return _table(title, heads, lines, last=0) + "\n"


def render_device(title: str, results: dict[str, Any]) -> str:
    """Tables of one device: environment, augmentations, pipelines, and a line each on drawing and memory."""
    rows = index_rows(results["rows"])
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items() if version)
    head = (
        f"**{title}**: {results['device']}, {results['threads']} CPU threads; {versions}; commit {results['commit']}."
    )
    parts = [head, _augmentations(rows), _pipelines(rows), _drawing(rows), _memory(results["rows"])]
    return "\n\n".join(part for part in parts if part)


def compare(ours: Row | None, peer: Row | None, name: str) -> str | None:
    """Text on a peer beside ours: times slower or faster, or failed; None if either was not timed."""
    if peer is not None and "failed" in peer:
        return f"{name} failed"
    if ours is None or peer is None or not (has_times(ours) and has_times(peer)):
        return None
    ratio = peer["median_ms"] / ours["median_ms"]
    if 0.95 < ratio < 1.05:
        return f"{name} as fast"
    return f"{name} {ratio:.1f}x slower" if ratio > 1 else f"{name} {1 / ratio:.1f}x faster"


def _augmentations(rows: Rows) -> str:
    heads = ["augmentation", "dtype", "ours, ms", "x copy", "ready buffer, ms", "x copy", "GB/s", "images/s"]
    lines = []
    for name, dtype in itertools.product(PEERS, ("float32", "uint8")):
        case = centre(name, dtype=dtype)
        ours, out = rows.get((case, "ours")), rows.get((case, "ours_out"))
        if ours is None:
            continue
        cells = [
            TITLES[name],
            dtype,
            *_show(ours, "median_ms", "ratio_to_copy"),
            *_show(out, "median_ms", "ratio_to_copy"),
        ]
        lines.append([*cells, *_show(out, "gb_per_s", "images_per_s"), *_others(rows, case)])
    title = "32 images of 448 px, a draw for each (GB/s and images/s: into a ready buffer):"
    return _table(title, [*heads, "others, per sample", "others, per batch"], lines)


def _pipelines(rows: Rows) -> str:
    heads = ["pipeline", "ours, ms", "x byte floor", "ready buffer, ms", "x byte floor", "images/s"]
    lines = []
    for name in ("rmg", "jigsaw", "cutmix"):
        case = centre(name, task="pipeline")
        ours, out = rows.get((case, "ours")), rows.get((case, "ours_out"))
        if ours is None:
            continue
        cells = [TITLES[name], *_show(ours, "median_ms", "ratio_to_copy"), *_show(out, "median_ms", "ratio_to_copy")]
        lines.append([*cells, *_show(out, "images_per_s"), *_others(rows, case)])
    title = "From stored uint8 images of 512 px: pick, crop to 448 px, flip, augment, normalise, cast to float32:"
    return _table(title, [*heads, "others, per sample", "others, per batch"], lines)


def _others(rows: Rows, case: Case) -> list[str]:
    cells = []
    for per in PERS:
        same = replace(case, per=per)
        ours = rows.get((same, "ours"))
        found = [compare(ours, rows.get((same, peer)), title) for peer, title in LIBRARIES.items()]
        cells.append(", ".join(text for text in found if text) or "-")
    return cells


def _drawing(rows: Rows) -> str:
    drawn = [(name, rows.get((centre(name, task="draw", batch=256), "ours"))) for name in PEERS]
    shown = "; ".join(f"{TITLES[name]}: {row['median_ms'] * 1e3:.0f}" for name, row in drawn if row and has_times(row))
    return f"Drawing plans for 256 images on one core, in us (bar: 300): {shown}." if shown else ""


def _memory(rows: Sequence[Row]) -> str:
    """Line on the memory of our calls beside input, output and plan, per 32 images."""
    held = [
        (row["peak_extra_bytes"] - row["plan_bytes"]) / math.ceil(row["batch"] / 32)
        for row in rows
        if "peak_extra_bytes" in row
    ]
    if not held:
        return ""
    within = sum(value <= MIB for value in held)
    return (
        "Beside input and output a call should hold at most the plan and 1 MiB per 32 images: "
        f"{within} of {len(held)} calls do, and the most is {max(0.0, *held) / MIB:.2f} MiB."
    )


def _show(row: Row | None, *fields: str) -> list[str]:
    if row is not None and "failed" in row:
        return ["failed"] + ["-"] * (len(fields) - 1)
    if row is None or not has_times(row):
        return ["-"] * len(fields)
    digits = {"median_ms": ".3g", "ratio_to_copy": ".2f", "gb_per_s": ".3g", "images_per_s": ",.0f"}
    return ["-" if row[field] is None else format(row[field], digits[field]) for field in fields]


def _table(title: str, heads: list[str], lines: list[list[str]], *, last: int = 2) -> str:
    """Markdown table: names, right-aligned numbers, and ``last`` columns of text."""
    if not lines:
        return ""
    names = sum(head in ("augmentation", "dtype", "pipeline") for head in heads)
    marks = ["---"] * names + ["---:"] * (len(heads) - names - last) + ["---"] * last
    return "\n".join([title, "", *(f"| {' | '.join(line)} |" for line in [heads, marks, *lines])])
