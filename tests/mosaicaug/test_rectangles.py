"""Plans as rectangles: they cover every output once, and copying them makes the oracle's images."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from mosaicaug import CutMix, Jigsaw, MixUp, Plan, RecursiveMosaic, SnapMix
from mosaicaug.rectangles import chosen_first, list_layers, list_rectangles, run_bounds
from tests.helpers.oracle import copy_pixels, number_pixels, seeded

SIZE = (13, 19)  # a margin for every grid


def copy_rectangles(images: Tensor, rectangles: Tensor) -> tuple[Tensor, Tensor]:
    """Images made of their rectangles one by one, and how often each pixel was written."""
    made, written = torch.full_like(images, -1), torch.zeros(len(images), *images.shape[-2:])
    for entry, row in enumerate(rectangles.tolist()):
        for x0, y0, x1, y1, image, right, down in row:
            made[entry, :, y0:y1, x0:x1] = images[image, :, y0 + down : y1 + down, x0 + right : x1 + right]
            written[entry, y0:y1, x0:x1] += 1
    return made, written


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("aug", [RecursiveMosaic(2), Jigsaw(3), Jigsaw(5, p=0.5), Jigsaw(1)], ids=str)
def test_rectangles_cover_the_output_once(aug: RecursiveMosaic | Jigsaw, across: bool) -> None:
    images = number_pixels((4, 1, *SIZE))
    plan = aug.sample(images.shape, generator=seeded(1))
    if across:  # tiles from all over the batch, some twice
        tiles = torch.randint(0, plan.tiles.numel(), plan.tiles.shape, generator=seeded(2))
        plan = dataclasses.replace(plan, tiles=tiles.int())
    made, written = copy_rectangles(images, list_rectangles(plan))
    assert (written == 1).all()
    assert torch.equal(made, copy_pixels(images, plan.to_dict()))


@pytest.mark.parametrize("size", [(12, 19), (19, 12)])
def test_a_margin_on_one_side_alone_stays(size: tuple[int, int]) -> None:
    images = number_pixels((2, 1, *size))
    plan = Jigsaw(3).sample(images.shape, generator=seeded(5))
    made, written = copy_rectangles(images, list_rectangles(plan))
    assert (written == 1).all()
    assert torch.equal(made, copy_pixels(images, plan.to_dict()))


def test_an_empty_batch_has_one_rectangle_per_image() -> None:
    assert list_rectangles(Plan.identity(0, (8, 8)).refine(2)).shape == (0, 1, 7)


def test_neighbours_that_move_together_are_one_rectangle() -> None:
    assert list_rectangles(Plan.identity(3, (8, 8)).refine(4)).shape == (3, 1, 7)
    for quadrants, count in ([3, 2, 1, 0], 4), ([2, 3, 0, 1], 2), ([0, 1, 3, 2], 3):
        plan = Plan.of_tiles(torch.tensor([quadrants], dtype=torch.int32), (8, 8)).refine(2)  # of 2x2 tiles each
        assert list_rectangles(plan).shape == (1, count, 7)


def test_layers_are_the_base_and_the_overlays() -> None:
    like = torch.empty(0, dtype=torch.float64)
    [base] = list_layers(Jigsaw(2).sample((3, 1, *SIZE)), like)
    assert base.cover is None
    swapped = Plan.of_tiles(torch.tensor([[1], [0]], dtype=torch.int32), (8, 8))
    assert list_layers(swapped, like)[0].image.tolist() == [[1], [0]]
    cut = CutMix().sample((3, 1, 64, 64), generator=seeded(3))
    base, overlay = list_layers(cut, like)
    assert base.cover is not None
    assert base.cover.dtype == torch.float64
    assert base.cover[:, 0, 0].tolist() == cut.to_box[:, [1, 0, 3, 2]].tolist()
    assert overlay.image[:, 0].tolist() == cut.overlay.tolist()
    blend = list_layers(MixUp().sample((3, 1, *SIZE)), like)[0]
    assert blend.cover is not None
    assert not blend.cover.any()  # a blended overlay covers nothing


def test_edges_and_centres_go_from_corner_to_corner() -> None:
    plan = SnapMix(1.0).sample((5, 1, 64, 64), generator=seeded(4))
    overlay = list_layers(plan, torch.empty(0, dtype=torch.float64))[1]
    near, far = overlay.source[..., :2], overlay.source[..., 2:]
    torch.testing.assert_close(overlay.move(near), overlay.target[..., :2])
    torch.testing.assert_close(overlay.move(far), overlay.target[..., 2:])
    torch.testing.assert_close(overlay.move_centres(near), overlay.target[..., :2])
    larger = ((overlay.source[..., 2:] - overlay.source[..., :2]) > 1).all(-1)
    got, want = overlay.move_centres(far - 1), overlay.target[..., 2:] - 1
    torch.testing.assert_close(got[larger], want[larger])


def test_runs_end_at_breaks() -> None:
    begin, end = run_bounds(torch.tensor([[False, True, False, False], [True, True, False, True]]))
    assert begin.tolist() == [[0, 0, 2, 2, 2], [0, 1, 2, 2, 4]]
    assert end.tolist() == [[2, 2, 5, 5, 5], [1, 2, 4, 4, 5]]


def test_the_chosen_come_first_and_in_order() -> None:
    chosen = torch.tensor([[False, True, False, True], [True, False, False, False]])
    assert chosen_first(chosen).tolist() == [[1, 3], [0, 1]]
    assert chosen_first(torch.zeros(0, 4, dtype=torch.bool), at_least=1).shape == (0, 1)
    assert chosen_first(torch.zeros(0, 4, dtype=torch.bool)).shape == (0, 0)
