"""Arguments of a launch: widths that the layout allows, one upload for all small tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mosaicaug import CutMix, Jigsaw, MixUp, Plan, SnapMix
from mosaicaug.backends.request import Request
from mosaicaug.backends.triton import launch
from mosaicaug.backends.triton.launch import place_inputs, prepare
from mosaicaug.backends.triton.table import pack

triton = pytest.importorskip("triton")


SHAPE = (4, 3, 24, 32)


def test_small_tensors_travel_together() -> None:
    """Words of 32 bits, those of float64 at even places."""
    table = pack([Jigsaw(3).sample(SHAPE)])
    request = Request(
        torch.float64,
        channels_last=False,
        index=torch.tensor([3, 1, 2]),
        mean=torch.tensor([1.5, -2.5], dtype=torch.float64),
        std=torch.tensor([2.0, 4.0]).expand(2),
    )
    tensors, (_, index_at, window_at, mean_at, scale_at) = place_inputs(table, torch.device("cpu"), request)
    words = tensors[0]
    assert words is not None
    assert words[: len(table.words)].equal(table.words)
    assert all(tensor is words for tensor in (tensors[1], tensors[3], tensors[4]))
    assert words[index_at:][:3].tolist() == [3, 1, 2]
    assert words[2 * mean_at :][:4].view(torch.float64).tolist() == [1.5, -2.5]
    assert words[scale_at:][:2].view(torch.float32).tolist() == [0.5, 0.25]
    assert (tensors[2], window_at) == (None, 0)


def prepare_for(images: Tensor, plan: Plan, out: Tensor, **values: Any) -> dict[str, Any]:
    return prepare(images, pack([plan]), Request(out.dtype, channels_last=False, **values), out)[1]


@pytest.mark.parametrize(
    ("size", "grid", "dtype", "vec"),
    [
        ((32, 32), 4, torch.uint8, 8),  # a tile of 8 px
        ((32, 128), 4, torch.uint8, 16),  # 16 bytes
        ((32, 128), 4, torch.float32, 4),
        ((32, 36), 4, torch.float32, 1),  # tiles of 9 px
    ],
)
def test_chunks_divide_rows_and_tiles(size: tuple[int, int], grid: int, dtype: torch.dtype, vec: int) -> None:
    images = torch.zeros(2, 3, *size, dtype=dtype)
    plan = Jigsaw(grid, permutation="cyclic").sample(images.shape)
    arguments = prepare_for(images, plan, torch.empty_like(images))
    assert (arguments["VEC"], arguments["INNER"], arguments["CONTIGUOUS"]) == (vec, 1, True)
    assert arguments["COMPUTE"] is None
    assert arguments["images_ptr"].element_size() == images.element_size()


def test_channels_last_has_whole_pixels_side_by_side() -> None:
    images = torch.zeros(2, 3, 16, 16).movedim(-3, -1).contiguous().movedim(-1, -3)
    arguments = prepare_for(images, Plan.identity(2, (16, 16)), torch.empty_like(images))
    assert (arguments["INNER"], arguments["CONTIGUOUS"], arguments["PLANES"]) == (3, True, 1)
    mixed = prepare_for(images, Plan.identity(2, (16, 16)), torch.empty(2, 3, 16, 16))
    assert (mixed["INNER"], mixed["CONTIGUOUS"], mixed["ALIGN"], mixed["PLANES"]) == (1, False, 1, 3)


def test_programs_cover_the_output() -> None:
    images = torch.zeros(4, 3, 30, 40)
    programs, arguments = prepare(
        images, pack([CutMix().sample(images.shape)]), Request(torch.float32, channels_last=False), images.clone()
    )
    made = arguments["VEC"] * arguments["ROWS"] * arguments["CHUNKS"] * arguments["PLANES"]
    assert programs[0] % 4 == 0
    assert programs[0] * made >= images.numel()
    assert (programs[0] // 4 - 1) * made // arguments["PLANES"] < 30 * 40  # no program of an image is idle


def test_any_number_of_planes_is_launched() -> None:
    """65,537 planes on one axis of programs: a GPU takes 65,535 on the others."""
    images = torch.zeros(1, 65537, 1, 4, 4)
    programs, arguments = prepare(
        images, pack([Jigsaw(2).sample(images.shape)]), Request(torch.float32, channels_last=False), images.clone()
    )
    assert programs == (65537,)
    assert arguments["PLANES"] == 1


@pytest.mark.parametrize(("begin", "vec"), [(0, 4), (1, 1), (2, 2), (4, 4)])
def test_stores_are_as_wide_as_the_address_of_the_output_allows(begin: int, vec: int) -> None:
    images = torch.zeros(2, 3, 16, 16)
    out = torch.zeros(images.numel() + begin)[begin:].view(images.shape)
    assert prepare_for(images, Plan.identity(2, (16, 16)), out)["VEC"] == vec


@pytest.mark.parametrize(
    ("size", "grid", "dtype", "rows"),
    [
        ((32, 32), 4, torch.float32, 2),  # 96 bytes of three planes for a thread
        ((48, 32), 4, torch.uint8, 4),  # of a tile of 12 rows
        ((28, 28), 4, torch.float32, 7),
        ((44, 44), 4, torch.uint8, 1),  # tiles of 11 rows
    ],
)
def test_rows_of_a_chunk_divide_tiles(size: tuple[int, int], grid: int, dtype: torch.dtype, rows: int) -> None:
    images = torch.zeros(2, 3, *size, dtype=dtype)
    plan = Jigsaw(grid, permutation="cyclic").sample(images.shape)
    assert prepare_for(images, plan, torch.empty_like(images))["ROWS"] == rows


def test_arithmetic_is_asked_for_only_where_there_is_some() -> None:
    images = torch.zeros(SHAPE)
    cases: list[tuple[Plan, dict[str, Any], torch.dtype | None]] = [
        (CutMix().sample(SHAPE), {}, None),
        (MixUp().sample(SHAPE), {}, torch.float32),
        (SnapMix().sample(SHAPE), {}, torch.float32),
        (SnapMix().sample(SHAPE), {"nearest": True}, None),
        (CutMix().sample(SHAPE), {"mean": torch.zeros(3)}, torch.float32),
    ]
    for plan, values, compute in cases:
        assert prepare_for(images, plan, torch.empty_like(images), **values)["COMPUTE"] == compute


@pytest.mark.parametrize(
    ("plan", "dtype", "begin", "packed"),
    [
        (CutMix(), torch.uint8, 0, True),
        (CutMix(), torch.bfloat16, 0, True),
        (CutMix(), torch.float32, 0, False),  # an element is a word by itself
        (MixUp(), torch.uint8, 0, False),  # values are mixed, not chosen
        (SnapMix(), torch.uint8, 0, False),
        (Jigsaw(2), torch.uint8, 0, False),  # there is nothing to choose from
        (CutMix(), torch.uint8, 2, False),  # no store of a word is aligned
        (CutMix(), torch.uint8, 4, True),
    ],
)
def test_bytes_under_an_overlay_are_chosen_as_words(plan: Any, dtype: torch.dtype, begin: int, packed: bool) -> None:
    images = torch.zeros(SHAPE, dtype=dtype)
    out = torch.zeros(images.numel() + begin, dtype=dtype)[begin:].view(images.shape)
    assert prepare_for(images, plan.sample(SHAPE), out)["PACKED"] is packed


@pytest.mark.parametrize(
    ("plan", "dtype", "channels_last", "vec", "rows", "chunks"),
    [
        (Jigsaw(2), torch.float32, False, 4, 2, 1),  # 96 bytes of three planes
        (Jigsaw(2), torch.uint8, False, 16, 2, 1),
        (Jigsaw(8), torch.uint8, False, 4, 3, 1),  # of a tile of 3 rows
        (Jigsaw(3), torch.uint8, False, 2, 8, 1),  # tiles of 10 px
        (MixUp(), torch.float32, False, 4, 1, 1),
        (MixUp(), torch.uint8, True, 16, 6, 1),
        (SnapMix(), torch.uint8, False, 4, 1, 1),
    ],
)
def test_a_thread_has_enough_bytes_on_their_way_and_no_more(
    plan: Any, dtype: torch.dtype, channels_last: bool, vec: int, rows: int, chunks: int
) -> None:
    images = torch.zeros(4, 3, 24, 32, dtype=dtype)
    if channels_last:
        images = images.movedim(-3, -1).contiguous().movedim(-1, -3)
    got = prepare_for(images, plan.sample(SHAPE), torch.empty_like(images))
    assert (got["VEC"], got["ROWS"], got["CHUNKS"] // launch.CHUNKS) == (vec, rows, chunks)


def test_rows_that_reach_far_have_wide_offsets() -> None:
    for step, dtype in ((2**31 - 1, torch.int32), (2**31, torch.int64)):
        images = torch.empty_strided((1, 1, 2, 2), (0, 0, 1, step), device="meta")
        assert prepare_for(images, Plan.identity(1, (2, 2)), torch.empty(1, 1, 2, 2))["OFFSET"] == dtype


@pytest.mark.parametrize(
    ("channels", "begin", "chunks"),
    [(3, 1, 4), (2, 4, 4), (3, 4, 2), (4, 4, 2), (3, 8, 1)],  # 3, 8, 12, 16 and 24 bytes of a chunk
)
def test_small_chunks_come_in_greater_numbers(channels: int, begin: int, chunks: int) -> None:
    images = torch.zeros(4, channels, 24, 32, dtype=torch.uint8)
    out = torch.zeros(images.numel() + begin, dtype=torch.uint8)[begin:].view(images.shape)
    assert prepare_for(images, CutMix().sample(images.shape), out)["CHUNKS"] == launch.CHUNKS * chunks


@pytest.mark.parametrize(
    ("dtype", "plan", "vec", "rows"),
    [
        (torch.uint8, Plan.identity(4, SHAPE[-2:]), 4, 8),  # gathered bytes
        (torch.bfloat16, Plan.identity(4, SHAPE[-2:]), 8, 6),
        (torch.uint8, MixUp().sample(SHAPE), 4, 6),  # float32 until they are stored
    ],
    ids=["bytes", "halves", "blended bytes"],
)
def test_gathered_bytes_come_four_at_a_time(dtype: torch.dtype, plan: Plan, vec: int, rows: int) -> None:
    out = torch.empty(4, 24, 32, 3, dtype=dtype).movedim(-1, -3)
    got = prepare_for(torch.zeros(SHAPE, dtype=dtype), plan, out)
    assert (got["INNER"], got["CONTIGUOUS"], got["VEC"], got["ROWS"]) == (3, False, vec, rows)
