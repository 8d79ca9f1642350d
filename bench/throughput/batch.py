"""Input of a timed call, shared by all sides, and the error of a side that cannot run a case."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.throughput.cases import Case

NUM_CLASSES = 200
STORED = 256  # images that a pipeline picks from
MEAN, STD = (124.0, 116.0, 104.0), (58.0, 57.0, 57.0)  # of stored pixels, 0 to 255


class UnfitError(Exception):
    """Error of a side that cannot run a case here; its message is the reason kept in the results."""


@dataclass(frozen=True)
class Batch:
    """Input of a case: images, labels and class activation maps.

    Args:
        images: ``[B, 3, H, W]``; for a pipeline the stored images, uint8 ``[N, 3, H, W]``, larger than its output.
        labels: int64 ``[B]``.
        maps: class activation maps ``[B, 14, 14]``.
    """

    images: Tensor
    labels: Tensor
    maps: Tensor


def make_batch(case: Case, device: str) -> Batch:
    """Random pixels for a case; consecutive cases with equal input share one tensor."""
    stored = case.task == "pipeline"
    count, size = (STORED, stored_size(case.size)) if stored else (case.batch, case.size)
    count = 0 if case.task == "draw" else count
    layout = torch.channels_last if case.layout == "channels_last" else torch.contiguous_format
    images = _make_images(count, size, torch.uint8 if stored else case.torch_dtype, layout, device)
    return add_labels(images, case.batch)


def add_labels(images: Tensor, batch: int) -> Batch:
    """Batch of ``images`` with labels and random activation maps for ``batch`` images."""
    device = images.device
    return Batch(images, torch.arange(batch, device=device) % NUM_CLASSES, torch.rand(batch, 14, 14, device=device))


def draw_index(case: Case, stored: Tensor) -> Tensor:
    """Random stored images of a batch: int64 ``[B]`` on the CPU, no image twice."""
    return torch.randperm(len(stored))[: case.batch]


def stored_size(size: int) -> int:
    """Height and width in px of the stored images that a pipeline crops: 512 for 448."""
    return size * 8 // 7


def import_library(module: str, package: str) -> Any:
    """Module of another library; raises `UnfitError` if ``package`` is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UnfitError(f"{package} is not installed") from error


@functools.lru_cache(maxsize=1)  # 617 MB for 256 x 448 px in float32
def _make_images(count: int, size: int, dtype: torch.dtype, layout: torch.memory_format, device: str) -> Tensor:
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, device=device)
    return pixels.to(dtype).contiguous(memory_format=layout)
