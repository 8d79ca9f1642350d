"""Versions, device and commit, recorded with every result."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch
from lightning_fabric import Fabric


def describe_environment(fabric: Fabric) -> dict[str, str]:
    """Describe versions, hardware and commit, as text for the record of a run."""
    packages = ("torch", "torchvision", "lightning-fabric", "numpy", "mosaicaug")
    versions = {name: importlib.metadata.version(name) for name in packages}
    count = torch.get_num_threads()
    threads = f" ({count} thread{'s' if count > 1 else ''})" if fabric.device.type == "cpu" else ""
    return {
        "python": platform.python_version(),
        **versions,
        "device": f"{fabric.device.type}: {device_name(fabric.device)}{threads}",
        "precision": fabric.strategy.precision.precision,
        "processes": str(fabric.world_size),
        "platform": f"{platform.system()} {platform.machine()}",
        "commit": read_commit(),
    }


def device_name(device: torch.device) -> str:
    """Name of a GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read_commit() -> str:
    """Read the commit of this code from git, with "-dirty" after changes; outside a checkout, say so."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
    return found.stdout.strip()
