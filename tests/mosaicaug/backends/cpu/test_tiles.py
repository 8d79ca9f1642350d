"""The tiled base on a CPU: views through windows, offsets of runs, rows picked from copies and crops."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from mosaicaug import Jigsaw, Plan, RecursiveMosaic, apply
from mosaicaug.backends.cpu import tiles
from mosaicaug.backends.cpu.tiles import TiledBase, View
from tests.helpers.oracle import copy_pixels, number_pixels

LAYOUTS = ["contiguous", "channels_last", "strided"]


@pytest.mark.usefixtures("poison", "no_kernel")
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


@pytest.mark.usefixtures("poison", "no_kernel")
@pytest.mark.parametrize("lead", [(3,), (2, 3)])
@pytest.mark.parametrize("wanted", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiles_are_picked_from_a_crop(
    layout: str, wanted: torch.memory_format, lead: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images as large as the scratch memory: each is a block."""
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


def test_run_offsets_are_the_first_pixels_in_memory() -> None:
    images = number_pixels((3, 2, 6, 8))
    window = torch.tensor([[1, 2, 0], [0, 0, 1]])
    view = View(images, torch.tensor([2, 0]), window, (4, 5))
    entry, y, x = torch.tensor([0, 1]), torch.tensor([3, 1]), torch.tensor([1, 1])
    pixels = images[:, 0].flatten()
    first = [images[2, 0, 1 + 3, 2 + 1], images[0, 0, 1, 5 - 3 - 1]]  # of three pixels, the mirrored run from its end
    offsets = view.run_offsets(entry, y, x, 3)
    assert [images.flatten()[offset] for offset in offsets] == first
    assert pixels.numel() == 3 * 48
    assert view.is_mirrored(entry).tolist() == [False, True]  # type: ignore[union-attr]


@pytest.mark.parametrize("flip", [0, 1])
def test_a_crop_shows_its_window(flip: int) -> None:
    images = number_pixels((2, 1, 6, 8))
    view = View(images, None, torch.tensor([[0, 0, 0], [1, 2, flip]]), (4, 5))
    want = images[1, :, 1:5, 2:7]
    want = want.flip(-1) if flip else want
    for y0, x0, y1, x1 in ([1, 0, 3, 4], [0, 1, 4, 3]):
        assert torch.equal(view.crop(1, [y0, x0, y1, x1]), want[:, y0:y1, x0:x1])


def test_rows_are_not_picked_where_memory_is_no_row_of_tiles() -> None:
    images = number_pixels((2, 1, 9, 9))
    margin = Jigsaw(4, permutation="cyclic").sample(images.shape)
    across = dataclasses.replace(Plan.identity(2, (9, 9)).refine(3), tiles=torch.arange(18).flip(0).view(2, 9).int())
    for plan in (margin, across):
        out = torch.full_like(images, -1)
        assert TiledBase(View(images, None, None, (9, 9)), plan).write_rows(out) is False
        assert (out == -1).all()
    own = Jigsaw(3, permutation="cyclic").sample(images.shape)
    out = torch.full_like(images, -1)
    assert TiledBase(View(images, None, None, (9, 9)), own).write_rows(out) is True
    assert torch.equal(out, copy_pixels(images, own.to_dict()))


@pytest.mark.parametrize("flip", [0, 1])
def test_the_base_says_what_an_element_takes_beside_the_output(flip: int) -> None:
    images = number_pixels((2, 1, 8, 8), torch.uint8)
    still, moved = Plan.identity(2, (8, 8)), Jigsaw(2, permutation="cyclic").sample(images.shape)
    window = torch.tensor([[0, 0, flip]] * 2)
    found = [
        TiledBase(View(images, None, seen, (8, 8)), plan).scratch_bytes(stage)
        for seen in (None, window)
        for plan in (still, moved)
        for stage in (torch.uint8, torch.float32)
    ]
    mirrored = 2 * flip
    assert found == [0, 0, 10 / 4, 10 / 4 + 1, 10 / 8 + mirrored, 10 / 8 + 1 + mirrored, 2.5 + mirrored, 3.5 + mirrored]
