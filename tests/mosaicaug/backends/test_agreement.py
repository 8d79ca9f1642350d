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
from mosaicaug.backends.cpu import compiled, tiles
from mosaicaug.backends.request import Request
from mosaicaug.backends.triton import launch
from tests.helpers.oracle import DTYPES, number_pixels

Call = tuple[Tensor, Plan, dict[str, Any]]
LAYOUTS = ["contiguous", "channels_last", "strided"]
AUGMENTATIONS: list[Callable[[], Augmentation]] = [
    lambda: RecursiveMosaic(2, p=0.8),
    lambda: Jigsaw(3, permutation="cyclic"),
    lambda: CutMix(p=0.8),
    lambda: MixUp(p=0.8, per="batch"),
    lambda: SnapMix(1.0, p=0.8),
]


class Draw:
    """Random arguments of `apply`, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def number(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=self.generator))

    def choose(self, values: list[Any]) -> Any:
        return values[self.number(0, len(values) - 1)]

    def plan(self, batch: int, size: tuple[int, int]) -> Plan:
        """Plan of an augmentation; or with tiles from all over the batch under its overlays, which may be blended."""
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
    """Images made by the reference backend, called directly."""
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
    """Assert equal bits, except that any NaN equals any other."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert got.shape[-3] == 1 or got.stride() == want.stride()
    assert torch.equal(got.isnan(), want.isnan())
    assert torch.equal(got.nan_to_num(), want.nan_to_num())
    assert torch.equal(got.signbit(), want.signbit())


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("block", [None, tiles.SCRATCH_BYTES, 3000])
@pytest.mark.parametrize("seed", range(10))
def test_a_cpu_gives_the_bits_of_the_reference(seed: int, block: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled kernel; or torch's operations, by blocks of several images and by bands of a few rows."""
    if block is None:
        monkeypatch.setattr(compiled, "UNIT_BYTES", 1000)
    else:
        monkeypatch.setattr(compiled, "load", lambda: None)
        monkeypatch.setattr(tiles, "SCRATCH_BYTES", block)
        monkeypatch.setattr(tiles, "STAGE_BYTES", block)
    for part in range(30):
        images, plan, options = Draw(100 * seed + part).call()
        before = images.clone()
        expect_same(apply(images, plan, backend="torch", **options), carry_out_slowly(images, plan, options))
        assert torch.equal(images, before)


@pytest.mark.usefixtures("poison")
@pytest.mark.skipif(compiled.load() is None, reason=f"no compiled kernel: {compiled.describe()}")
@pytest.mark.parametrize("seed", range(10))
def test_staged_rows_have_the_bits_of_the_reference(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a buffer that begins at any address, among bytes that stay as they were; half of them past the cache."""
    monkeypatch.setattr(compiled, "UNIT_BYTES", 1000)
    monkeypatch.setattr(compiled, "STAGED_BYTES", 0)
    monkeypatch.setattr(compiled, "STAGE_BYTES", 200)
    for part in range(30):
        monkeypatch.setattr(compiled, "STREAM_BYTES", part % 2 * 10**9)
        images, plan, options = Draw(1000 * seed + part).call()
        want = carry_out_slowly(images, plan, options)
        around = torch.full((want.numel() + 32,), 7).to(want.dtype)
        out = around[part % 17 :].as_strided(want.shape, want.stride())
        expect_same(apply(images, plan, backend="torch", out=out, **options), want)
        out.fill_(7)
        assert bool((around == 7).all())


@pytest.mark.usefixtures("poison", "interpreter")
@pytest.mark.parametrize("seed", range(5))
def test_the_kernel_gives_the_bits_of_the_reference(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images made by one program, and by several; chunks of one row, and of several."""
    for part in range(12):
        monkeypatch.setattr(launch, "CHUNKS", 256 if part % 4 == 0 else 2048)
        monkeypatch.setattr(launch, "MOST_ROWS", 3 if part % 4 == 1 else 1)
        images, plan, options = Draw(100 * seed + part).call()
        expect_same(apply(images, plan, backend="triton", **options), carry_out_slowly(images, plan, options))
