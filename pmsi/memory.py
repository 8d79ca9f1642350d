"""How much memory a run takes, and what would fit where a batch does not."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or the host, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def find_largest(below: int, attempt: Callable[[int], object]) -> int:
    """The largest batch under ``below``, found by trying halves of what is left; 0 if not even 2 images fit.

    Args:
        attempt: a step of so many images.
    """
    fits, fails = 0, below
    while fails - fits > 1 and fails > 2:
        size = max(2, (fits + fails) // 2)
        try:
            attempt(size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            fails = size
        else:
            fits = size
    return fits


def measure_peak(device: torch.device) -> float:
    """GB that this process's tensors took on a GPU, or that the process took of the host, at the most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
