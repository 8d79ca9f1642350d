"""Masks, boxes and keypoints: held to the oracle, and boxes and keypoints to masks painted with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mosaicaug import (
    Augmentation,
    Compose,
    CutMix,
    Jigsaw,
    MixUp,
    Placed,
    Plan,
    RecursiveMosaic,
    SnapMix,
    apply_boxes,
    apply_keypoints,
    apply_masks,
)
from tests.helpers.oracle import mask_pixels, number_pixels, seeded

SIZE = (22, 27)
DTYPES = [torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64]
COPIES: dict[str, Callable[[], Augmentation]] = {
    "RecursiveMosaic": lambda: RecursiveMosaic(2),
    "Jigsaw": lambda: Jigsaw(5),
    "p below 1": lambda: Jigsaw(3, p=0.5),
    "CutMix": CutMix,
    "Compose": lambda: Compose([RecursiveMosaic(2), CutMix()]),
}
BLENDS: dict[str, Callable[[], Augmentation]] = {"MixUp": MixUp, "SnapMix": lambda: SnapMix(1.0)}
all_augs = pytest.mark.parametrize("make", [*COPIES.values(), *BLENDS.values()], ids=[*COPIES, *BLENDS])
copies = pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)


def draw(make: Callable[[], Augmentation], batch: int = 6, seed: int = 3) -> Plan:
    return make().sample((batch, 1, *SIZE), generator=seeded(seed))


def draw_boxes(batch: int, count: int, seed: int) -> Tensor:
    """Boxes ``[B, N, 4]`` of whole numbers, a few of them empty."""
    corners = torch.rand(batch, count, 2, 2, generator=seeded(seed)) * torch.tensor([SIZE[1] + 1, SIZE[0] + 1])
    return corners.floor().sort(2).values.flatten(2)


def paint(boxes: Tensor) -> Tensor:
    """One layer for each box, its number plus 1 where it is: int64 ``[B, N, H, W]``."""
    y, x = torch.arange(SIZE[0])[:, None], torch.arange(SIZE[1])
    x0, y0, x1, y1 = boxes[..., None, None].unbind(2)
    number = torch.arange(1, boxes[..., 0].numel() + 1).view(*boxes.shape[:2], 1, 1)
    return number * ((x >= x0) & (x < x1) & (y >= y0) & (y < y1))


@all_augs
@pytest.mark.parametrize(
    "options", [{}, {"index": [4, 0, 0, 2], "window": [[0, 0, 1], [5, 3, 0], [1, 2, 1], [3, 3, 0]]}]
)
def test_a_mask_shows_the_oracles_pixel(
    make: Callable[[], Augmentation], options: dict[str, Any], device: torch.device
) -> None:
    room = (5, 3) if options else (0, 0)
    stored = number_pixels((6, SIZE[0] + room[0], SIZE[1] + room[1])).long()
    plan = draw(make, 4 if options else 6)
    tensors: dict[str, Any] = {name: torch.tensor(value, device=device) for name, value in options.items()}
    got = apply_masks(stored.to(device), plan, **tensors).cpu()
    assert (got.dtype, got.shape) == (torch.int64, (len(plan), *SIZE))
    fields = plan.to_dict()
    for entry in range(len(plan)):
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                allowed = mask_pixels(fields, entry, y, x, **options)
                assert int(got[entry, y, x]) in {int(stored[pixel]) for pixel in allowed}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("lead", [(), (1,), (3, 1)])
def test_masks_of_every_dtype_and_rank_are_copied_bit_by_bit(
    dtype: torch.dtype, lead: tuple[int, ...], device: torch.device
) -> None:
    """Number all pixels, look up the numbers, and the dtype's own masks must agree; halves hold a signalling NaN."""
    plan = draw(BLENDS["SnapMix"])
    numbers = torch.arange(6 * SIZE[0] * SIZE[1]).view(6, *SIZE)
    where = apply_masks(numbers, plan)
    bits = torch.randint(0, 2 if dtype == torch.bool else 256, (numbers.numel(), dtype.itemsize), generator=seeded(1))
    values = bits.byte().view(dtype).flatten()
    masks = values[numbers].view(6, *(1,) * len(lead), *SIZE).expand(-1, *lead, -1, -1)
    got = apply_masks(masks.to(device), plan).cpu()
    assert got.dtype == dtype
    assert got.shape == (6, *lead, *SIZE)
    want = values[where].view(6, *(1,) * len(lead), *SIZE).expand(-1, *lead, -1, -1).contiguous()
    assert torch.equal(got.view(torch.uint8), want.view(torch.uint8))


def test_the_heavier_mask_stands_where_images_are_blended() -> None:
    plan = dataclasses.replace(
        Plan.identity(3, (2, 2)),
        overlay=torch.tensor([1, 2, 0], dtype=torch.int32),
        from_box=torch.tensor([[0, 0, 2, 2]] * 3, dtype=torch.int32),
        to_box=torch.tensor([[0, 0, 2, 2]] * 3, dtype=torch.int32),
        opacity=torch.tensor([0.4, 0.5, 0.6]),
    )
    masks = torch.tensor([10, 20, 30]).view(3, 1, 1).expand(3, 2, 2)
    assert apply_masks(masks, plan)[:, 0, 0].tolist() == [10, 20, 10]


@copies
@pytest.mark.parametrize("seed", range(4))
def test_pieces_are_the_rectangles_that_painted_boxes_become(make: Callable[[], Augmentation], seed: int) -> None:
    """Every painted pixel lies in one piece, and a piece holds nothing else but what the overlay covers."""
    plan, boxes = draw(make, seed=seed), draw_boxes(6, 4, seed)
    seen = apply_masks(paint(boxes), plan)
    placed = apply_boxes(boxes, plan)
    rectangles = paint(placed.values) > 0  # [B, M, H, W]
    covered = paint(plan.to_box[:, None, [1, 0, 3, 2]])[:, 0] > 0  # [B, H, W]
    for entry in range(6):
        assert not placed.values[entry][placed.source[entry] < 0].any()
        for source in range(24):
            pieces = rectangles[entry, placed.source[entry] == source]
            painted = seen[entry, source % 4] == source + 1
            assert bool((painted | covered[entry])[pieces.any(0)].all())
            if source // 4 == plan.overlay[entry] == entry:  # it lies over itself
                assert bool(pieces.any(0)[painted].all())
            else:
                assert bool((pieces.sum(0)[painted] == 1).all())
            for piece in pieces:
                for axis in (0, 1):  # no smaller box would do
                    ends = piece.any(axis).nonzero().flatten()[[0, -1]]
                    assert bool((painted & piece).any(axis)[ends].all())


@pytest.mark.parametrize("aug", [Jigsaw(5, p=0.0), RecursiveMosaic(3, p=0.0), RecursiveMosaic(0)], ids=str)
def test_a_box_that_no_tile_cuts_stays_whole(aug: Augmentation) -> None:
    """Over the margin too."""
    boxes = torch.tensor([[[0.0, 0.0, 27.0, 22.0], [3.5, 2.25, 26.5, 21.75]]])
    placed = apply_boxes(boxes, aug.sample((1, 3, *SIZE)))
    assert torch.equal(placed.values, boxes)
    assert placed.source.tolist() == [[0, 1]]


def test_tiles_that_move_together_cut_nothing() -> None:
    """Upper half of a 4 x 4 grid stays but for its two outer columns, the lower half trades places."""
    order = [3, 1, 2, 0, 7, 5, 6, 4, 10, 11, 8, 9, 14, 15, 12, 13]
    plan = Plan.of_tiles(torch.tensor([order], dtype=torch.int32), (8, 12))
    placed = apply_boxes(torch.tensor([[[0, 0, 12, 8], [4.0, 1, 5, 3], [5, 3, 8, 6]]]), plan)
    whole = [[0, 0, 3, 4], [3, 0, 9, 4], [9, 0, 12, 4], [0, 4, 6, 8], [6, 4, 12, 8]]
    assert placed.values.tolist() == [[*whole, [4, 1, 5, 3], [5, 3, 8, 4], [0, 4, 2, 6], [11, 4, 12, 6]]]
    assert placed.source.tolist() == [[0, 0, 0, 0, 0, 1, 2, 2, 2]]


def cover(box: list[int], opacity: float = 1.0) -> Plan:
    """Two images of 10 x 10 px, each with the same box of the other laid over it."""
    boxes = torch.tensor([box, box], dtype=torch.int32)
    return dataclasses.replace(
        Plan.identity(2, (10, 10)),
        overlay=torch.tensor([1, 0], dtype=torch.int32),
        from_box=boxes,
        to_box=boxes,
        opacity=torch.tensor([opacity] * 2),
    )


@pytest.mark.parametrize(
    ("box", "left"),
    [
        ([0, 0, 10, 5], [5, 2, 8, 8]),  # y0, x0, y1, x1: the left half
        ([4, 0, 10, 10], [2, 2, 8, 4]),
        ([0, 0, 5, 5], [2, 2, 8, 8]),  # a corner: no smaller box would do
        ([4, 4, 6, 6], [2, 2, 8, 8]),
        ([4, 0, 6, 10], [2, 2, 8, 8]),
        ([2, 2, 8, 8], None),
    ],
)
def test_a_box_shrinks_to_what_the_overlay_leaves(box: list[int], left: list[int] | None) -> None:
    boxes = torch.tensor([[[2.0, 2, 8, 8]], [[0.0, 0, 0, 0]]])
    placed = apply_boxes(boxes, cover(box))
    assert placed.values[0, placed.source[0] == 0].tolist() == ([] if left is None else [left])


def test_a_blend_covers_nothing_and_shows_both() -> None:
    boxes = torch.tensor([[[2.0, 2, 8, 8]], [[0.0, 0, 3, 3]]])
    placed = apply_boxes(boxes, cover([0, 0, 10, 10], 0.25))
    assert placed.source.tolist() == [[0, 1], [1, 0]]
    assert placed.values[0].tolist() == [[2, 2, 8, 8], [0, 0, 3, 3]]
    unseen = apply_boxes(boxes, cover([0, 0, 10, 10], 0.0))
    assert unseen.source.tolist() == [[0], [1]]
    points = torch.tensor([[[2.0, 3.0]], [[9.0, 9.0]]])
    assert apply_keypoints(points, cover([0, 0, 10, 10], 0.25)).source.tolist() == [[0, 1], [1, 0]]


def test_min_visibility_drops_pieces_that_show_less_of_their_box() -> None:
    """A box of 100 px, cut 60 to 40 by an overlay, and of the partner's 100 px as much."""
    boxes = torch.tensor([[[0.0, 0, 10, 10]], [[0.0, 0, 10, 10]]])
    for least, kept in ((0.0, [[0, 1], [1, 0]]), (0.4, [[0, 1], [1, 0]]), (0.41, [[0], [1]]), (0.61, [[], []])):
        placed = apply_boxes(boxes, cover([0, 0, 10, 4]), min_visibility=least)
        assert placed.source.tolist() == kept


@all_augs
@pytest.mark.parametrize("seed", range(3))
def test_largest_keeps_every_box_in_its_slot(make: Callable[[], Augmentation], seed: int) -> None:
    plan, boxes = draw(make, seed=seed), draw_boxes(6, 4, seed)
    every, largest = apply_boxes(boxes, plan), apply_boxes(boxes, plan, pieces="largest")
    assert largest.source.shape == (6, 8 if plan.has_overlay.any() else 4)
    slots = torch.arange(largest.source.shape[1]) % 4
    assert bool(((largest.source % 4 == slots) | (largest.source < 0)).all())
    for entry in range(6):
        assert set(largest.source[entry].tolist()) - {-1} == set(every.source[entry].tolist()) - {-1}
        for value, source in zip(largest.values[entry].tolist(), largest.source[entry], strict=True):
            assert source < 0 or value in every.values[entry, every.source[entry] == source].tolist()


def test_largest_is_the_largest() -> None:
    plan = Plan.of_tiles(torch.tensor([[1, 0, 2, 3]], dtype=torch.int32), (8, 8))
    placed = apply_boxes(torch.tensor([[[3.0, 0, 6, 4], [2, 0, 5, 4]]]), plan, pieces="largest")
    assert placed.values.tolist() == [[[0, 0, 2, 4], [6, 0, 8, 4]]]


@copies
@pytest.mark.parametrize("seed", range(3))
def test_keypoints_go_where_their_pixel_goes(make: Callable[[], Augmentation], seed: int) -> None:
    plan = draw(make, seed=seed)
    points = (torch.rand(6, 5, 2, generator=seeded(seed)) * torch.tensor([SIZE[1], SIZE[0]])).floor()
    seen = apply_masks(paint(torch.cat([points, points + 1], 2)), plan)
    placed = apply_keypoints(points, plan)
    assert placed.values.shape == (6, 10 if plan.has_overlay.any() else 5, 2)
    for entry in range(6):
        found = {(int(seen[entry, k, y, x]) - 1, x, y) for k, y, x in seen[entry].nonzero().tolist()}
        there = placed.source[entry] >= 0
        rows = zip(placed.source[entry, there].tolist(), placed.values[entry, there].tolist(), strict=True)
        got = {(source, int(x), int(y)) for source, (x, y) in rows}
        assert got == found
        assert not placed.values[entry, ~there].any()


def test_a_keypoint_belongs_to_the_pixel_that_it_begins_in() -> None:
    plan = Plan.of_tiles(torch.tensor([[1, 0, 2, 3]], dtype=torch.int32), (8, 8))
    points = torch.tensor([[[3.75, 3.75], [4.0, 0.0], [3.0, 4.0], [-0.25, 1.0], [1.0, 8.0]]])
    placed = apply_keypoints(points, plan)
    assert placed.values.tolist() == [[[7.75, 3.75], [0, 0], [3, 4], [0, 0], [0, 0]]]
    assert placed.source.tolist() == [[0, 1, 2, -1, -1]]


def test_snapmix_moves_corner_to_corner() -> None:
    """A box of 3 x 5 px stretched to 5 x 9: pixel centres keep the corners, edges keep the edges."""
    plan = dataclasses.replace(
        Plan.identity(2, (12, 12)),
        overlay=torch.tensor([1, 0], dtype=torch.int32),
        from_box=torch.tensor([[2, 1, 5, 6], [0, 0, 0, 0]], dtype=torch.int32),
        to_box=torch.tensor([[4, 3, 9, 12], [0, 0, 0, 0]], dtype=torch.int32),
    )
    points = torch.tensor([[[5.0, 5.0], [2.0, 4.0]], [[1.0, 2.0], [5.0, 4.0]]])
    placed = apply_keypoints(points, plan)
    assert placed.source.tolist() == [[-1, 1, 2, 3], [2, 3, -1, -1]]
    assert placed.values[0].tolist() == [[0, 0], [2, 4], [3, 4], [11, 8]]
    halfway = apply_keypoints(torch.tensor([[[0.0, 0.0]], [[3.0, 3.0]]]), plan)
    assert halfway.values[0, 1].tolist() == [7, 6]
    last = apply_keypoints(torch.tensor([[[0.0, 0.0]], [[5.75, 4.5]]]), plan)  # its pixel is the corner
    assert last.values[0, 1].tolist() == [11, 8]
    boxes = apply_boxes(torch.tensor([[[0.0, 0, 2, 2]], [[0.0, 0, 6, 5]]]), plan)
    assert boxes.values[0].tolist() == [[0, 0, 2, 2], [3, 4, 12, 9]]


@pytest.mark.parametrize("seed", range(3))
def test_snapmix_boxes_lie_round_their_masks(seed: int) -> None:
    """Within a pixel of the output and one of the source, stretched."""
    plan, boxes = draw(BLENDS["SnapMix"], seed=seed), draw_boxes(6, 3, seed)
    seen, placed = apply_masks(paint(boxes), plan), apply_boxes(boxes, plan, pieces="largest")
    extents = [(box[:, 2:] - box[:, :2]).float() for box in (plan.to_box, plan.from_box)]
    scale = (extents[0] / extents[1].clamp(min=1)).amax(1)
    checked = 0
    for entry, slot in (placed.source[:, 3:] >= 0).nonzero().tolist():
        source = int(placed.source[entry, 3 + slot])
        rows, columns = (seen[entry, slot] == source + 1).nonzero().unbind(1)
        if len(rows) and plan.overlay[entry] != entry:
            drawn = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert (placed.values[entry, 3 + slot] - drawn).abs().max() <= 1 + scale[entry]
            checked += 1
    assert checked > 3


@pytest.mark.parametrize(
    ("given", "wanted"), [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.int64, torch.float32)]
)
def test_places_are_float64_where_they_were(given: torch.dtype, wanted: torch.dtype) -> None:
    plan = Jigsaw(2).sample((1, 3, 8, 8))
    assert apply_keypoints(torch.ones(1, 1, 2, dtype=given), plan).values.dtype == wanted
    assert apply_boxes(torch.tensor([[[0, 0, 4, 4]]], dtype=given), plan).values.dtype == wanted
    third = torch.full((1, 1, 2), 1 / 3, dtype=given)
    assert torch.equal(apply_keypoints(third, Plan.identity(1, (8, 8))).values, third.to(wanted))


def test_labels_follow() -> None:
    placed = Placed(torch.zeros(2, 3, 4), torch.tensor([[0, 0, 3], [2, -1, -1]]))
    assert placed.take(torch.tensor([[5, 6], [7, 8]])).tolist() == [[5, 5, 8], [7, -1, -1]]
    assert placed.take(torch.tensor([[True, False], [True, True]]), fill=0).tolist() == [
        [True, True, True],
        [True, False, False],
    ]
    assert placed.take(torch.ones(2, 2, 5), fill=0.5).shape == (2, 3, 5)
    none = Placed(torch.zeros(2, 1, 4), torch.full((2, 1), -1))
    assert torch.equal(none.take(torch.ones(2, 0, 5, 6), fill=7), torch.full((2, 1, 5, 6), 7.0))


def test_tiles_from_all_over_the_batch() -> None:
    """Plans that no augmentation draws: tiles of another image, and one tile twice."""
    plan = Plan.of_tiles(torch.tensor([[4, 4, 2, 3], [0, 5, 6, 7]], dtype=torch.int32), (8, 8))
    boxes, points = torch.tensor([[[0.0, 0, 3, 3]], [[1.0, 1, 4, 4]]]), torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])
    placed = apply_boxes(boxes, plan)
    assert placed.source.tolist() == [[1, 1], [0, -1]]
    assert placed.values.tolist() == [[[1, 1, 4, 4], [5, 1, 8, 4]], [[0, 0, 3, 3], [0, 0, 0, 0]]]
    found = apply_keypoints(points, plan)
    assert found.source.tolist() == [[1], [0]]
    assert found.values.tolist() == [[[3, 0]], [[1, 2]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64])
def test_dtypes_of_boxes_and_keypoints(dtype: torch.dtype) -> None:
    plan = draw(BLENDS["SnapMix"])
    wanted = dtype if dtype.is_floating_point else torch.float32
    assert apply_boxes(draw_boxes(6, 2, 0).to(dtype), plan).values.dtype == wanted
    assert apply_keypoints(torch.ones(6, 2, 2, dtype=dtype), plan).values.dtype == wanted


@all_augs
@pytest.mark.parametrize(("batch", "count"), [(0, 3), (6, 0), (1, 1)])
def test_empty_batches_and_no_boxes(make: Callable[[], Augmentation], batch: int, count: int) -> None:
    plan = draw(make, batch)
    assert apply_boxes(torch.zeros(batch, count, 4), plan).values.shape == (batch, 0, 4)
    assert apply_boxes(torch.zeros(batch, count, 4), plan, pieces="largest").values.shape[0] == batch
    assert apply_keypoints(torch.zeros(batch, count, 2), plan).source.shape[0] == batch
    assert apply_masks(torch.zeros(batch, *SIZE), plan).shape == (batch, *SIZE)


def test_what_does_not_fit_is_said() -> None:
    plan = draw(COPIES["Jigsaw"], 2)
    with pytest.raises(ValueError, match=r"apply_masks: the plan is for \(22, 27\) px, got masks of \(22, 26\)"):
        apply_masks(torch.zeros(2, 22, 26), plan)
    with pytest.raises(ValueError, match=r"apply_masks: the plan is for 2 images, got 3 masks"):
        apply_masks(torch.zeros(3, *SIZE), plan)
    with pytest.raises(ValueError, match=r"apply_masks: masks must be \[B, H, W\]"):
        apply_masks(torch.zeros(*SIZE), plan)
    with pytest.raises(TypeError, match=r"apply_masks: plan must be a Plan, got Jigsaw"):
        apply_masks(torch.zeros(2, *SIZE), Jigsaw(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"apply_boxes: boxes must be \[2, N, 4\], got \[2, 4\]"):
        apply_boxes(torch.zeros(2, 4), plan)
    with pytest.raises(ValueError, match=r"inside 27x22 px .* got \[1.0, 1.0, 28.0, 2.0\] for box 1 of image 1; clip"):
        apply_boxes(torch.tensor([[[0.0, 0, 1, 1]] * 2, [[0.0, 0, 1, 1], [1.0, 1, 28, 2]]]), plan)
    with pytest.raises(ValueError, match=r"with x0 <= x1 and y0 <= y1"):
        apply_boxes(torch.tensor([[[5.0, 0, 1, 1]]] * 2), plan)
    with pytest.raises(ValueError, match=r"apply_boxes: boxes must be .* got \[nan"):
        apply_boxes(torch.full((2, 1, 4), torch.nan), plan)
    with pytest.raises(ValueError, match=r"apply_boxes: min_visibility must lie in 0..1, got 2"):
        apply_boxes(torch.zeros(2, 1, 4), plan, min_visibility=2)
    with pytest.raises(ValueError, match=r"apply_boxes: pieces must be one of \('all', 'largest'\), got 'some'"):
        apply_boxes(torch.zeros(2, 1, 4), plan, pieces="some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"apply_keypoints: keypoints must be \[2, N, 2\], got \[2, 3, 3\]"):
        apply_keypoints(torch.zeros(2, 3, 3), plan)


def test_annotations_are_tensors() -> None:
    plan = Plan.identity(1, (4, 4))
    array: Any = np.zeros((1, 4, 4))
    for function in (apply_masks, apply_boxes, apply_keypoints):
        with pytest.raises(TypeError, match=rf"^{function.__name__}: \w+ must be a tensor, got ndarray; use "):
            function(array, plan)
    with pytest.raises(TypeError, match=r"^Placed.take: labels must be a tensor, got list"):
        apply_keypoints(torch.zeros(1, 1, 2), plan).take([[1]])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^apply_boxes: min_visibility must be a number, got '1'$"):
        apply_boxes(torch.zeros(1, 1, 4), plan, min_visibility="1")  # type: ignore[arg-type]
