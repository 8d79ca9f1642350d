"""The reference backend against the oracle, called directly: every other backend is held to its bits."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mosaicaug import CutMix, Jigsaw, MixUp, Plan, RecursiveMosaic, SnapMix
from mosaicaug.backends import reference
from mosaicaug.backends.request import Request
from tests.helpers.oracle import blend_pixels, copy_pixels, number_pixels, seeded


def run(images: Tensor, plan: Plan, out: Tensor | None = None, *, channels_last: bool = False, **values: Any) -> Tensor:
    request = Request(values.pop("dtype", images.dtype), channels_last=channels_last, **values)
    return reference.run(images, plan, request, out)


@pytest.mark.parametrize("aug", [RecursiveMosaic(2), Jigsaw(3), CutMix()], ids=str)
def test_copies_are_the_oracles_bits(aug: RecursiveMosaic | Jigsaw | CutMix) -> None:
    images = number_pixels((4, 2, 13, 12))
    plan = aug.sample(images.shape, generator=seeded(1))
    window, index = [[0, 0, 0], [1, 2, 1], [2, 1, 0], [0, 2, 1]], [3, 0, 0, 2]
    assert torch.equal(run(images, plan), copy_pixels(images, plan.to_dict()))
    stored = number_pixels((4, 2, 15, 14))
    got = run(stored, plan, window=torch.tensor(window), index=torch.tensor(index))
    assert torch.equal(got, copy_pixels(stored, plan.to_dict(), window=window, index=index))


@pytest.mark.parametrize("aug", [MixUp(), SnapMix(1.0)], ids=str)
def test_blends_are_the_oracles_within_80_roundings(aug: MixUp | SnapMix) -> None:
    images = torch.rand(4, 2, 13, 12, generator=seeded(2), dtype=torch.float64)
    plan = aug.sample(images.shape, generator=seeded(3))
    assert (run(images, plan) - blend_pixels(images, plan.to_dict())).abs().max() <= 80 * 2.0**-53


def test_nothing_is_shared_with_the_images() -> None:
    images = number_pixels((2, 3, 4, 4))
    got = run(images, Plan.identity(2, (4, 4)))
    assert torch.equal(got, images)
    assert got.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_output_is_made_in_the_layout_asked_for_or_filled(channels_last: bool) -> None:
    images = number_pixels((2, 3, 4, 5))
    plan = Jigsaw(2).sample(images.shape)
    made = run(images, plan, channels_last=channels_last, dtype=torch.float64)
    assert (made.dtype, made.stride(1) == 1) == (torch.float64, channels_last)
    out = torch.empty(2, 3, 4, 5)
    assert run(images, plan, out) is out
    assert torch.equal(out.double(), made)


def test_nearest_takes_pixels_that_are_there() -> None:
    images = number_pixels((4, 1, 9, 9))
    plan = SnapMix(1.0).sample(images.shape, generator=seeded(4))
    assert plan.has_overlay.any()
    got = run(images, plan, nearest=True)
    assert set(got.flatten().tolist()) <= set(images.flatten().tolist())


@pytest.mark.parametrize("to_box", [[0, 0, 8, 4], [0, 0, 4, 8]], ids=["taller", "wider"])
def test_a_box_of_another_length_along_one_axis_is_resampled(to_box: list[int]) -> None:
    images = torch.rand(2, 1, 8, 8, generator=seeded(5))
    boxes: dict[str, Any] = {
        "from_box": torch.tensor([[0, 0, 4, 4]] * 2).int(),
        "to_box": torch.tensor([to_box] * 2).int(),
    }
    plan = dataclasses.replace(Plan.identity(2, (8, 8)), overlay=torch.tensor([1, 0]).int(), **boxes)
    got = reference.run(images, plan, Request(torch.float32, channels_last=False), None)
    y0, x0, y1, x1 = to_box
    want = F.interpolate(images.flip(0)[..., :4, :4], (y1 - y0, x1 - x0), mode="bilinear", align_corners=True)
    torch.testing.assert_close(got[..., y0:y1, x0:x1], want, rtol=0, atol=1e-6)


def test_tiles_come_from_any_image_of_the_batch() -> None:
    images = number_pixels((3, 1, 6, 6))
    plan = dataclasses.replace(Plan.identity(3, (6, 6)).refine(3), tiles=torch.arange(27).flip(0).view(3, 9).int())
    got = reference.run(images, plan, Request(torch.float32, channels_last=False), None)
    assert torch.equal(got, copy_pixels(images, plan.to_dict()))


def test_bytes_end_at_255() -> None:
    images = torch.tensor([-5.0, 254.6, 256.0, 300.0]).view(1, 1, 1, 4)
    got = reference.run(images, Plan.identity(1, (1, 4)), Request(torch.uint8, channels_last=False), None)
    assert got.flatten().tolist() == [0, 255, 255, 255]
