"""Files of results under bench/results: the environment of a run, and one row per measurement."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pmsi.runtime.environment import name_device, read_commit

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "bench" / "results"
PACKAGES = {"dali": "nvidia-dali-cuda130"}  # where the names differ
NAMES = ("mosaicaug", "torch", "triton", "torchvision", "kornia", "timm", "dali")

Row = dict[str, Any]


def describe_environment(device: str) -> dict[str, Any]:
    """Device, CPU threads, versions and commit of this run, as the head of a file of results."""
    return {
        "device": name_device(torch.device(device)),
        "device_type": device,
        "threads": torch.get_num_threads(),
        "commit": read_commit("bench/results"),
        "versions": {"python": platform.python_version()} | {name: _read_version(name) for name in NAMES},
    }


def results_path(kind: str, environment: dict[str, Any]) -> Path:
    """Path of the results of a kind of run on a device, such as bench/results/throughput-cpu-amd-epyc.json."""
    name = ("cpu " if environment["device_type"] == "cpu" else "") + environment["device"]
    return FOLDER / f"{kind}-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"


def write_results(path: Path, environment: dict[str, Any], rows: Sequence[Row]) -> None:
    """Write a file of results: JSON with one line per row."""
    head = json.dumps(environment, indent=1).removesuffix("\n}")
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head},\n "rows": [\n  {lines}\n ]\n}}\n', encoding="utf-8")


def round_figure(value: float) -> float:
    """Round to four significant digits, far finer than the difference between two runs."""
    return float(f"{value:.4g}")


def _read_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(PACKAGES.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return None
