"""Versions, device and commit, recorded with every result."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # files of results need no trainer, and it takes seconds to import

import mosaicaug


def describe_environment(fabric: Fabric) -> dict[str, str]:
    """Describe versions, hardware and commit, as text for the record of a run."""
    count = torch.get_num_threads()
    threads = f" ({count} thread{'s' if count > 1 else ''})" if fabric.device.type == "cpu" else ""
    return {
        **list_versions(),
        "device": f"{fabric.device.type}: {name_device(fabric.device)}{threads}",
        "precision": fabric.strategy.precision.precision,
        "processes": str(fabric.world_size),
        "platform": f"{platform.system()} {platform.machine()}",
        "commit": read_commit(),
    }


def list_versions() -> dict[str, str]:
    """List the versions of Python and of the packages that decide a result."""
    packages = ("torch", "torchvision", "lightning-fabric", "numpy")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found, "mosaicaug": mosaicaug.__version__}


@functools.cache
def name_version() -> str:
    """Name the version and commit of this code, as run folders keep it: "pmsi 0.1.0 (81a76b6)"."""
    return f"pmsi {mosaicaug.__version__} ({read_commit()})"


def name_device(device: torch.device) -> str:
    """Name of a GPU, or of the processor for every other device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read_commit(*ignored: str) -> str:
    """Commit of the checkout, with "-dirty" if tracked files were changed; "not a git checkout" outside of one.

    Args:
        ignored: paths below the checkout's root whose changes do not count.
    """
    unchanged = [f":(top,exclude){path}" for path in ignored]
    try:
        commit = _ask_git("describe", "--always")
        changes = _ask_git("status", "--porcelain", "--untracked-files=no", "--", ":/", *unchanged)
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
    return f"{commit}-dirty" if changes else commit


def _ask_git(*words: str) -> str:
    here = Path(__file__).parent
    return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
