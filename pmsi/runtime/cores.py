"""Cores that a process may use: by its affinity, by the quota of its control group, and shared among ranks."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path


def count_cores() -> int:
    """Number of cores that this process may use; a container or a batch system allows fewer than the machine has."""
    if sys.version_info >= (3, 13):
        allowed = os.process_cpu_count() or 1
    else:
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = read_quota()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def count_workers(asked: int | None = None, *, alone: bool = False) -> int:
    """Number of threads or processes that work for this process.

    Args:
        asked: setting of the user; None takes this process's share of the cores.
        alone: the other processes that `torchrun` started on this host wait meanwhile, if this is the first.

    Raises:
        ValueError: ``asked`` is below 0.
    """
    if asked is not None:
        if asked < 0:
            raise ValueError(f"--workers: must be 0 or above, got {asked}")
        return asked
    if alone and os.environ.get("LOCAL_RANK") == "0":
        return count_cores()
    return max(1, count_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def read_quota(groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores' worth of time that Linux's control groups allow, of version 2 or 1; None without a limit.

    Args:
        groups: lists the groups of this process.
        mount: folder of all groups.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:  # another system, or hidden
        return None
    quotas = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        place = Path(path.lstrip("/"))
        for above in (place, *place.parents, Path()):  # in a container the group's own path may not be there
            found = _read_pair(mount / controllers / above) or _read_pair(mount / "cpu" / above)
            if found is not None and found[0] > 0 and found[1] > 0:
                quotas.append(found[0] / found[1])
    return min(quotas, default=None)


def _read_pair(group: Path) -> tuple[float, float] | None:
    """Quota and period of a group in microseconds; None if it has none."""
    try:
        if (group / "cpu.max").is_file():
            quota, _, period = (group / "cpu.max").read_text(encoding="utf-8").partition(" ")
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period"))
        return float(quota), float(period)
    except (OSError, ValueError):  # not there, or "max"
        return None
