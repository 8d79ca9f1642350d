"""Backends against each other: whatever a plan, a window, a layout or a dtype may be, all give the same bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mosaicaug import Augmentation, CutMix, Jigsaw, MixUp, Plan, RecursiveMosaic, SnapMix, apply
from mosaicaug.backends import reference
from mosaicaug.backends.cpu import tiles
from mosaicaug.backends.request import Request
from tests.helpers.oracle import copy_pixels, number_pixels

Call = tuple[Tensor, Plan, dict[str, Any]]
DTYPES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]
LAYOUTS = ["contiguous", "channels_last", "strided"]
AUGMENTATIONS: list[Callable[[], Augmentation]] = [
    lambda: RecursiveMosaic(2, p=0.8),
    lambda: Jigsaw(3, permutation="cyclic"),
    lambda: CutMix(p=0.8),
    lambda: MixUp(p=0.8, per="batch"),
    lambda: SnapMix(1.0, p=0.8),
]


class Draw:
    """Arguments of `apply` drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def number(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=self.generator))

    def choose(self, values: list[Any]) -> Any:
        return values[self.number(0, len(values) - 1)]

    def plan(self, batch: int, size: tuple[int, int]) -> Plan:
        """Of an augmentation; or with tiles from all over the batch under its overlays, which may be blended."""
        plan: Plan = self.choose(AUGMENTATIONS)().sample((batch, 1, *size), generator=self.generator)
        if self.number(0, 1):
            grid = self.number(1, 6)
            tiles = torch.randint(0, batch * grid**2, (batch, grid**2), generator=self.generator, dtype=torch.int32)
            plan = dataclasses.replace(plan, tiles=tiles)
        if self.number(0, 3) == 0:
            opacity = torch.rand(batch, generator=self.generator).where(torch.arange(batch) > 0, 1)
            plan = dataclasses.replace(plan, opacity=opacity)
        if self.number(0, 3) == 0:  # overlays of one size that land elsewhere
            box = torch.tensor([[0, 0, size[0] // 2, size[1] // 2]] * batch, dtype=torch.int32)
            shift = torch.tensor([size[0] // 3, size[1] // 3] * 2, dtype=torch.int32)
            plan = dataclasses.replace(plan, from_box=box, to_box=box + shift)
        return plan

    def call(self) -> Call:
        batch, channels, size = self.number(1, 6), self.number(1, 4), (self.number(6, 40), self.number(6, 40))
        stored, lead = self.choose([None, self.number(1, 8)]), self.choose([(), (2,)])
        room = self.choose([None, (self.number(0, 8), self.number(0, 8))])
        shape = (
            stored or batch,
            *lead,
            channels,
            *(length + extra for length, extra in zip(size, room or (0, 0), strict=True)),
        )
        images = number_pixels(shape, self.choose(DTYPES), self.choose(LAYOUTS))
        options: dict[str, Any] = {
            "dtype": self.choose([None, *DTYPES]),
            "memory_format": self.choose([None, torch.contiguous_format, torch.channels_last]),
        }
        if stored:
            options["index"] = torch.randint(0, stored, (batch,), generator=self.generator)
        if room:
            flips = self.choose([0, 1]) * torch.randint(0, 2, (batch,), generator=self.generator)
            corner = [torch.randint(0, extra + 1, (batch,), generator=self.generator) for extra in room]
            options["window"] = torch.stack([*corner, flips], 1)
        if self.number(0, 1):
            options["mean"] = (100 * torch.rand(channels, generator=self.generator)).tolist()
        if self.number(0, 1):
            options["std"] = (1 + 50 * torch.rand(channels, generator=self.generator)).tolist()
        return images, self.plan(batch, size), options


def carry_out_slowly(images: Tensor, plan: Plan, options: dict[str, Any]) -> Tensor:
    """By the reference backend."""
    work = torch.float64 if images.dtype == torch.float64 else torch.float32
    mean, std = (
        None if values is None else torch.tensor(values, dtype=work)
        for values in (options.get("mean"), options.get("std"))
    )
    normalised = torch.float32 if images.dtype == torch.uint8 and (mean, std) != (None, None) else images.dtype
    dense = images.movedim(-3, -1).is_contiguous() and not images.is_contiguous()
    wanted = options["memory_format"]
    request = Request(
        options["dtype"] or normalised,
        channels_last=dense if wanted is None else wanted == torch.channels_last,
        window=options.get("window"),
        index=options.get("index"),
        mean=mean,
        std=std,
    )
    return reference.run(images, plan, request, None)


def expect_same(got: Tensor, want: Tensor) -> None:
    """Bits, but that a NaN is a NaN."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert got.shape[-3] == 1 or got.stride() == want.stride()
    assert torch.equal(got.isnan(), want.isnan())
    assert torch.equal(got.nan_to_num(), want.nan_to_num())
    assert torch.equal(got.signbit(), want.signbit())


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("scratch", [tiles.SCRATCH_BYTES, 3000])
@pytest.mark.parametrize("seed", range(10))
def test_runs_give_the_bits_of_the_reference(seed: int, scratch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of several images, and bands of a few rows."""
    monkeypatch.setattr(tiles, "SCRATCH_BYTES", scratch)
    monkeypatch.setattr(tiles, "STAGE_BYTES", scratch)
    for part in range(30):
        images, plan, options = Draw(100 * seed + part).call()
        before = images.clone()
        expect_same(apply(images, plan, backend="torch", **options), carry_out_slowly(images, plan, options))
        assert torch.equal(images, before)


@pytest.mark.usefixtures("poison", "interpreter")
@pytest.mark.parametrize("seed", range(10))
def test_the_kernel_gives_the_bits_of_the_reference(seed: int) -> None:
    for part in range(12):
        images, plan, options = Draw(100 * seed + part).call()
        expect_same(apply(images, plan, backend="triton", **options), carry_out_slowly(images, plan, options))


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("block", [1, 2, 3, 4, 7, 10])
def test_rows_are_picked_from_a_copy_that_lies_in_the_output(
    block: int, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks that divide the batch and others; the last images, whose place the copy has, are made last."""
    images = number_pixels((10, 3, 16, 24), layout=layout)
    monkeypatch.setattr(tiles, "STAGE_BYTES", block * images[0].nbytes)
    for aug in (RecursiveMosaic(2), Jigsaw(8)):
        plan = aug.sample(images.shape)
        assert torch.equal(apply(images, plan), copy_pixels(images, plan.to_dict()))
        picked = torch.tensor([3, 3, 9, 0, 1, 2, 7, 8, 8, 4])
        want = copy_pixels(images, plan.to_dict(), index=picked.tolist())
        assert torch.equal(apply(images, plan, index=picked), want)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("lead", [(3,), (2, 3)])
@pytest.mark.parametrize("wanted", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiles_are_picked_from_a_crop(
    layout: str, wanted: torch.memory_format, lead: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of images as large as the scratch, so that each is a block."""
    stored = number_pixels((5, *lead, 19, 30), torch.uint8, layout)
    windows, picked = [[3, 6, 0], [0, 0, 1], [2, 5, 1]], [4, 0, 4]
    monkeypatch.setattr(tiles, "SCRATCH_BYTES", 16 * 24 * stored[0, ..., 0, 0].numel())
    crops: list[int] = []
    pick = tiles.TiledBase._write_cropped

    def count(base: tiles.TiledBase, entry: int, into: Tensor) -> None:
        crops.append(entry)
        pick(base, entry, into)

    monkeypatch.setattr(tiles.TiledBase, "_write_cropped", count)
    for aug in (RecursiveMosaic(2), Jigsaw(8)):
        plan = aug.sample((3, *stored.shape[1:-2], 16, 24))
        options: dict[str, Any] = {"window": torch.tensor(windows), "index": torch.tensor(picked)}
        want = copy_pixels(stored, plan.to_dict(), window=windows, index=picked)
        assert torch.equal(apply(stored, plan, memory_format=wanted, **options), want)
        got = apply(stored, plan, memory_format=wanted, mean=[1.0, 2.0, 3.0], **options)
        assert torch.equal(got, want.float() - torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1))
    assert crops == 4 * [0, 1, 2]


@pytest.mark.parametrize("left", range(0, 25, 3))
def test_one_box_for_all_may_lie_anywhere(left: int) -> None:
    """Its columns divide the image's width, but it does not begin at a multiple of them."""
    images, partners = number_pixels((4, 2, 32, 32)), torch.tensor([2, 3, 1, 0])
    box = torch.tensor([[5, left, 21, left + 8]] * 4, dtype=torch.int32)
    plan = dataclasses.replace(Plan.identity(4, (32, 32)), overlay=partners.int(), from_box=box, to_box=box)
    want = images.clone()
    want[:, :, 5:21, left : left + 8] = images[partners][:, :, 5:21, left : left + 8]
    assert torch.equal(apply(images, plan), want)
