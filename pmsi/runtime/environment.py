"""Versions, device and commit, recorded with every result."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch
from lightning_fabric import Fabric


def describe_environment(fabric: Fabric) -> dict[str, str]:
    """Versions and hardware, for the record."""
    packages = ("torch", "torchvision", "lightning-fabric", "numpy", "mosaicaug")
    versions = {name: importlib.metadata.version(name) for name in packages}
    device = _processor() if fabric.device.type == "cpu" else torch.cuda.get_device_name(fabric.device)
    count = torch.get_num_threads()
    threads = f" ({count} thread{'s' if count > 1 else ''})" if fabric.device.type == "cpu" else ""
    return {
        "python": platform.python_version(),
        **versions,
        "device": f"{fabric.device.type}: {device}{threads}",
        "precision": fabric.strategy.precision.precision,
        "processes": str(fabric.world_size),
        "platform": f"{platform.system()} {platform.machine()}",
        "commit": _commit(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
    return found.stdout.strip()
