"""The CPU backend as a whole: blocks that cover the output, output passed or made, what is read and not written."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mosaicaug import Augmentation, CutMix, Jigsaw, MixUp, RecursiveMosaic, SnapMix
from mosaicaug.backends import cpu, reference
from mosaicaug.backends.cpu import tiles
from mosaicaug.backends.request import Request
from tests.helpers.oracle import copy_pixels, number_pixels, seeded


@pytest.mark.parametrize("bands", [False, True])
@pytest.mark.parametrize("scratch", [0.0, 1.0, 50.0, 1e6])
def test_blocks_cover_every_row_of_every_image_once(
    scratch: float, bands: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "SCRATCH_BYTES", 5000)
    out, seen = torch.empty(7, 3, 10, 12), torch.zeros(7, 10)
    for images, rows in cpu._blocks(out, scratch, bands=bands):
        assert bands or (rows.start, rows.stop) == (0, 10)
        seen[images, rows] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("scratch", "bands", "images", "rows"),
    [
        (1.0, False, 7, 10),  # 13.9 images would fit
        (5.0, True, 2, 10),
        (12.0, True, 1, 10),  # 1.16 images
        (50.0, True, 1, 2),  # 0.28 of an image
        (50.0, False, 1, 10),
        (1e6, True, 1, 1),
    ],
)
def test_blocks_are_as_large_as_the_scratch_memory(
    scratch: float, bands: bool, images: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "SCRATCH_BYTES", 5000)
    out = torch.empty(7, 3, 10, 12)
    assert next(cpu._blocks(out, scratch, bands=bands)) == (slice(0, images), slice(0, rows))


def test_values_of_channels_are_spread_over_a_row_where_channels_lie_side_by_side() -> None:
    values = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    planes, pixels = torch.empty(2, 3, 4, 5), torch.empty(2, 3, 4, 5, memory_format=torch.channels_last)
    assert cpu._spread(values, planes) is values
    one = values[:1]
    assert cpu._spread(one, pixels[:, :1]) is one
    spread = cpu._spread(values, pixels)
    assert (spread.shape, spread.stride(0), spread.stride(-1)) == ((3, 1, 5), 1, 3)
    assert torch.equal(spread, values.expand(3, 1, 5))


@pytest.mark.usefixtures("no_kernel")
@pytest.mark.parametrize(
    ("aug", "dtype", "wanted", "std", "whole"),
    [
        (CutMix(), torch.uint8, torch.uint8, None, True),
        (CutMix(), torch.float32, torch.float32, None, True),
        (Jigsaw(2), torch.uint8, torch.float32, None, False),
        (Jigsaw(2), torch.uint8, torch.float32, [2.0], False),
        (MixUp(), torch.float32, torch.float32, None, False),
        (CutMix(), torch.float32, torch.bfloat16, [2.0], False),
    ],
    ids=str,
)
def test_the_base_is_written_at_once_where_blocks_are_not_read_again(
    aug: Augmentation,
    dtype: torch.dtype,
    wanted: torch.dtype,
    std: list[float] | None,
    whole: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = number_pixels((6, 3, 8, 8), dtype)
    plan = aug.sample(images.shape, generator=seeded(5))
    sizes: list[int] = []
    write = tiles.TiledBase.write

    def note(base: tiles.TiledBase, block: tiles.Block, into: Tensor) -> None:
        sizes.append(len(into))
        write(base, block, into)

    monkeypatch.setattr(tiles.TiledBase, "write", note)
    request = Request(wanted, channels_last=False, std=None if std is None else torch.tensor(std).expand(3))
    want = reference.run(images, plan, request, None)
    monkeypatch.setattr(tiles, "SCRATCH_BYTES", images[:1].numel())  # blocks are of one image or less
    assert torch.equal(cpu.run(images, plan, request, None), want)
    assert (sizes == [6]) == whole


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_output_is_made_or_filled(channels_last: bool, given: bool) -> None:
    images = number_pixels((4, 3, 8, 12))
    plan = Jigsaw(4).sample(images.shape, generator=seeded(3))
    request = Request(torch.float32, channels_last=channels_last)
    out = request.make_output((4, 3, 8, 12), images.device) if given else None
    got = cpu.run(images, plan, request, out)
    assert (got is out) == given
    assert (got.stride(1) == 1) == channels_last
    assert torch.equal(got, copy_pixels(images, plan.to_dict()))


@pytest.mark.usefixtures("no_kernel", "poison")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("aug", [Jigsaw(4), RecursiveMosaic(2), CutMix(), MixUp(), SnapMix()], ids=str)
def test_operations_make_the_pixels_of_the_reference(
    aug: Augmentation, channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Margins, windows of which some are mirrored, an index, videos, nearest pixels and other dtypes."""
    window = torch.tensor([[1, 2, 0], [0, 3, 1], [2, 0, 1], [0, 0, 0], [1, 1, 0]])
    index = torch.tensor([6, 0, 3, 3, 1])
    for seed, (lead, size) in enumerate([((), (9, 14)), ((), (16, 24)), ((2,), (12, 8))]):
        plan = aug.sample((5, *lead, 3, *size), generator=seeded(seed))
        stored = number_pixels((7, *lead, 3, size[0] + 2, size[1] + 3), torch.uint8)
        for dtype, std in ((torch.uint8, None), (torch.float32, torch.full((3,), 2.0))):
            for nearest in (False, True):
                request = Request(dtype, channels_last, window, index, None, std, nearest)
                want = reference.run(stored, plan, request, None)
                for room in (1, 500, tiles.SCRATCH_BYTES):
                    with monkeypatch.context() as patch:
                        patch.setattr(tiles, "SCRATCH_BYTES", room)
                        assert torch.equal(cpu.run(stored, plan, request, None), want)
