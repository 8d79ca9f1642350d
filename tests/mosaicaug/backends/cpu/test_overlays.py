"""Overlays on a CPU: one by one or many at once, the same pixels; and values rounded once."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from mosaicaug import CutMix, MixUp, Plan, apply
from mosaicaug.backends.cpu import tiles
from mosaicaug.backends.cpu.overlays import Overlays, round_into
from mosaicaug.backends.cpu.tiles import View
from tests.helpers.oracle import number_pixels, seeded


@pytest.mark.usefixtures("no_kernel")
@pytest.mark.parametrize("left", range(0, 25, 3))
def test_one_box_for_all_may_lie_anywhere(left: int) -> None:
    """Its columns divide the image's width, but it does not begin at a multiple of them."""
    images, partners = number_pixels((4, 2, 32, 32)), torch.tensor([2, 3, 1, 0])
    box = torch.tensor([[5, left, 21, left + 8]] * 4, dtype=torch.int32)
    plan = dataclasses.replace(Plan.identity(4, (32, 32)), overlay=partners.int(), from_box=box, to_box=box)
    want = images.clone()
    want[:, :, 5:21, left : left + 8] = images[partners][:, :, 5:21, left : left + 8]
    assert torch.equal(apply(images, plan), want)


@pytest.mark.parametrize("aug", [CutMix(), MixUp(), MixUp(p=0.5)], ids=str)
def test_overlays_laid_at_once_are_those_laid_one_by_one(aug: CutMix | MixUp, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(6, 3, 16, 16, generator=seeded(1))
    plan = aug.sample(images.shape, generator=seeded(2))
    overlays = Overlays(View(images, None, None, (16, 16)), plan, torch.float32, nearest=False)
    calls: list[int] = []
    lay_one = Overlays._lay_one

    def count(self: Overlays, entry: int, rows: slice, into: Tensor) -> None:
        calls.append(entry)
        lay_one(self, entry, rows, into)

    monkeypatch.setattr(Overlays, "_lay_one", count)
    at_once, one_by_one = images.clone(), images.clone()
    overlays.write((slice(0, 6), slice(0, 16)), at_once)
    assert calls == []
    monkeypatch.setattr(tiles, "SCRATCH_BYTES", 1)
    overlays.write((slice(0, 6), slice(0, 16)), one_by_one)
    assert calls == [entry for entry in range(6) if plan.has_overlay[entry]]
    assert torch.equal(at_once, one_by_one)


def test_values_are_rounded_to_the_nearest_and_clamped_for_uint8_alone() -> None:
    values = torch.tensor([-3.0, 0.5, 1.5, 2.4, 254.6, 300.0])
    whole, floats = torch.empty(6, dtype=torch.uint8), torch.empty(6)
    round_into(values.clone(), whole)
    round_into(values, floats)
    assert whole.tolist() == [0, 0, 2, 2, 255, 255]
    assert torch.equal(floats, values)
