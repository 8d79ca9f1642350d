"""Memory of a training run, and the largest batch that fits if a batch does not."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor

from pmsi.models.base import Network


def check_host(error: RuntimeError, images: int, side: int) -> None:
    """Refuse a step of ``images`` images of ``side`` px if ``error`` says that the host ran out of memory.

    No smaller batch is tried there, unlike on a device: torch does not give back all that the step held, so that the
    answer would be wrong, and the next step can crash.

    Raises:
        ValueError: it did.
    """
    # torch's allocator says so, or oneDNN, which names no reason.
    words = ("DefaultCPUAllocator", "could not create a primitive", "could not create a memory object")
    if any(word in str(error) for word in words):
        size = f"{images} images of {side} px"
        raise ValueError(f"{size} a step do not fit in the host's memory; lower --batch-size or --crop") from None


def largest_batch(below: int, attempt: Callable[[int], object]) -> int:
    """The largest batch under ``below``, found by trying halves of what is left; 0 if not even 2 images fit.

    Args:
        attempt: a step of so many images.
    """
    fits, fails = 0, below
    while fails - fits > 1 and fails > 2:
        size = max(2, (fits + fails) // 2)
        try:
            attempt(size)
        except torch.OutOfMemoryError:
            fails = size
        else:
            fits = size
    return fits


def advise_batch(network: Network, outputs: Sequence[int | None], images: Tensor, fabric: Fabric) -> str:
    """Advice on a mini-batch that does not fit in an accelerator's memory, found by trying smaller ones.

    Args:
        network: without gradients.
        outputs: of all phases.
        images: the share of one process, ``[b, 3, H, W]``; their values are lost.
        fabric: gives the precision.
    """
    gc.collect()  # what the step that failed still holds
    device, (share, _, _, side) = images.device, images.shape

    def attempt(size: int) -> None:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        for output in outputs:
            with fabric.autocast():
                labels = torch.zeros(size, dtype=torch.int64, device=device)
                loss = network.loss(images.zero_()[:size], labels, output)
            torch.autograd.backward(loss)

    largest = largest_batch(share, attempt)
    found = f"{largest} do" if largest else "not even 2 do"
    whole = f"; set --batch-size to {largest * fabric.world_size} or less" if largest else "; lower --crop"
    return f"{share} images of {side} px a step do not fit in the memory of {device}, {found}{whole}"


def measure_peak(device: torch.device) -> float | None:
    """GB that this process's tensors took on a GPU, or that the process took of the host, at the most.

    None on Windows, which does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
