"""Overlays on a CPU: one by one or many at once, the same pixels; and values rounded once."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from mosaicaug import Augmentation, CutMix, MixUp, Plan, SnapMix, apply
from mosaicaug.backends.cpu import tiles
from mosaicaug.backends.cpu.overlays import Overlays, round_into
from mosaicaug.backends.cpu.tiles import View
from mosaicaug.backends.resample import Taps
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


def make_overlays(plan: Plan, images: Tensor, *, nearest: bool = False) -> Overlays:
    height, width = images.shape[-2:]
    return Overlays(View(images, None, None, (height, width)), plan, torch.float32, nearest=nearest)


@pytest.mark.parametrize("nearest", [False, True])
def test_overlays_say_what_they_need(nearest: bool) -> None:
    images = torch.rand(8, 3, 16, 16, generator=seeded(3))
    found = {}
    for aug in (CutMix(p=1.0), MixUp(), SnapMix(p=1.0)):
        made = make_overlays(aug.sample(images.shape, generator=seeded(4)), images, nearest=nearest)
        bytes_ = made.scratch_bytes(torch.float32), made.scratch_bytes(torch.uint8)
        found[type(aug).__name__] = (made.in_place, made.blend, made.calculate, *bytes_)
    assert found == {
        "CutMix": (True, False, False, 8, 8),
        "MixUp": (True, True, True, 4, 8),
        "SnapMix": (False, False, not nearest, 8, 8),
    }
    none = make_overlays(Plan.identity(8, (16, 16)), images)
    assert (none.in_place, none.blend, none.calculate, none.scratch_bytes(torch.float32)) == (True, False, False, 0)


@pytest.mark.parametrize(("members", "room", "at_once"), [(2, 0, True), (2, -1, False), (1, 0, False)])
def test_two_overlays_or_more_are_laid_at_once_where_the_scratch_memory_holds_them(
    members: int, room: int, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(4, 3, 8, 8, generator=seeded(5))
    plan = CutMix(p=1.0).sample(images.shape, generator=seeded(6))
    calls: list[int] = []
    monkeypatch.setattr(Overlays, "_lay_one", lambda *_: calls.append(1))
    monkeypatch.setattr(Overlays, "_lay_at_once", lambda *_: calls.append(2))
    monkeypatch.setattr(tiles, "SCRATCH_BYTES", 2 * 4 * members * 3 * 8 * 8 + room)
    make_overlays(plan, images).write((slice(0, members), slice(0, 8)), images[:members].clone())
    assert calls == ([2] if at_once else [1] * members)


@pytest.mark.parametrize("aug", [CutMix(p=1.0), MixUp(), SnapMix(p=1.0)], ids=str)
def test_bands_of_rows_get_their_part_of_an_overlay(aug: Augmentation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "SCRATCH_BYTES", 1)  # one by one, and resampled ones row by row
    images = torch.rand(5, 3, 24, 20, generator=seeded(7))
    overlays = make_overlays(aug.sample(images.shape, generator=seeded(8)), images)
    whole, banded = images.clone(), images.clone()
    overlays.write((slice(0, 5), slice(0, 24)), whole)
    for top in range(0, 24, 6):
        overlays.write((slice(0, 5), slice(top, top + 6)), banded[..., top : top + 6, :])
    assert torch.equal(whole, banded)
    assert not torch.equal(whole, images)


def test_resampled_overlays_are_cut_in_bands_that_the_scratch_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of 10 px takes two or three of the 8 px that it is made of: (4 + 2 * 3) * 8 + 3 * 10 values a channel."""
    images = torch.rand(2, 3, 32, 32, generator=seeded(9))
    boxes = [torch.tensor([box] * 2, dtype=torch.int32) for box in ([4, 2, 19, 10], [8, 0, 14, 10])]
    plan = dataclasses.replace(
        Plan.identity(2, (32, 32)), overlay=torch.tensor([1, 0]).int(), from_box=boxes[0], to_box=boxes[1]
    )
    cuts: list[tuple[int, int]] = []
    cut = Overlays._cut_rows

    def note(self: Overlays, entry: int, top: int, end: int, taps: tuple[Taps, Taps] | None) -> Tensor:
        cuts.append((top, end))
        return cut(self, entry, top, end, taps)

    monkeypatch.setattr(Overlays, "_cut_rows", note)
    monkeypatch.setattr(tiles, "SCRATCH_BYTES", 4 * 3 * 4 * ((4 + 2 * 3) * 8 + 3 * 10))
    make_overlays(plan, images).write((slice(0, 1), slice(0, 32)), images[:1].clone())
    assert cuts == [(0, 4), (4, 6)]


@pytest.mark.usefixtures("no_kernel")
def test_an_opaque_overlay_among_others_hides_infinities() -> None:
    images = torch.rand(2, 1, 4, 4, generator=seeded(10))
    images[0] = torch.inf
    plan = MixUp().sample(images.shape, generator=seeded(11))
    plan = dataclasses.replace(plan, overlay=torch.tensor([1, 0]).int(), opacity=torch.tensor([1.0, 0.5]))
    assert torch.equal(apply(images, plan)[0], images[1])


@pytest.mark.usefixtures("no_kernel")
def test_another_default_device_changes_nothing() -> None:
    images = torch.rand(6, 3, 16, 16, generator=seeded(12))
    for aug in (CutMix(), MixUp(), SnapMix()):
        plan = aug.sample(images.shape, generator=seeded(13))
        want = apply(images, plan)
        with torch.device("meta"):
            assert torch.equal(apply(images, plan), want)
