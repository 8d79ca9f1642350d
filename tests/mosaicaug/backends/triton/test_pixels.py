"""Casts of the kernel against torch's."""

from __future__ import annotations

import pytest
import torch

from mosaicaug import MixUp, Plan, apply
from tests.helpers.oracle import seeded

pytest.importorskip("triton")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_bytes_are_clamped_and_rounded_to_even(kernel_device: torch.device, dtype: torch.dtype) -> None:
    values = torch.tensor([-3.0, 0.5, 1.5, 2.5, 254.0, 300.0], dtype=dtype, device=kernel_device).view(6, 1, 1, 1)
    got = apply(values, Plan.identity(6, (1, 1)), dtype=torch.uint8)
    assert got.flatten().tolist() == [0, 0, 2, 2, 254, 255]


def test_every_byte_is_a_float_and_back(kernel_device: torch.device) -> None:
    images = torch.arange(256, dtype=torch.uint8, device=kernel_device).view(1, 1, 16, 16).repeat(2, 1, 1, 1)
    plan = Plan.identity(2, (16, 16))
    assert torch.equal(apply(images, plan, mean=[0.0]), images.float())
    assert torch.equal(apply(images, plan, mean=[0.0], dtype=torch.uint8), images)
    blended = MixUp().sample(images.shape, generator=seeded(1))
    assert torch.equal(apply(images, blended), images)  # of two equal images
