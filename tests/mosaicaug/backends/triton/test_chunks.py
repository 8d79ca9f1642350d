"""Chunks of several rows, and programs that leave the overlay out."""

from __future__ import annotations

import pytest
import torch

from mosaicaug import Jigsaw, RecursiveMosaic, SnapMix, apply
from mosaicaug.backends.triton import launch
from tests.helpers.oracle import number_pixels, seeded

pytest.importorskip("triton")


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("last", [False, True])
def test_rows_of_a_chunk_move_together(
    kernel_device: torch.device, dtype: torch.dtype, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles of 7 rows, in chunks of 7; without tiles, chunks of 3 in 21 rows."""
    monkeypatch.setattr(launch, "MOST_ROWS", 8)
    images = number_pixels((3, 2, 21, 24), dtype, "channels_last" if last else "contiguous").to(kernel_device)
    for aug in (Jigsaw(3), RecursiveMosaic(0)):
        plan = aug.sample(images.shape, generator=seeded(1))
        assert torch.equal(apply(images, plan), apply(images, plan, backend="torch"))


@pytest.mark.usefixtures("poison")
def test_programs_that_miss_a_resampled_box_copy(kernel_device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of four rows: above the box, in it, below it, and images without one."""
    monkeypatch.setattr(launch, "CHUNKS", 32)
    images = torch.rand(2, 1, 20, 32, device=kernel_device)
    for seed in range(3):
        plan = SnapMix(1.0, p=0.7).sample(images.shape, generator=seeded(seed))
        assert torch.equal(apply(images, plan), apply(images, plan, backend="torch"))
