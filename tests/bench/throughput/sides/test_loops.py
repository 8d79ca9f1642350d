"""The loops do what descriptions of the published code say."""

from __future__ import annotations

import random

import pytest
import torch

from bench.throughput.batch import UnfitError, add_labels
from bench.throughput.cases import centre
from bench.throughput.sides import loops


def test_the_loop_of_jigsaw_is_one_cycle() -> None:
    """As published: star transpositions, each once, make one cycle through all cells."""
    for _ in range(5):
        order = loops.swap_cells(torch.arange(16).view(1, 1, 4, 4), 4).flatten().tolist()
        cell, length = order[0], 1
        while cell:
            cell, length = order[cell], length + 1
        assert length == 16


def test_the_mosaic_enters_one_quadrant_after_another() -> None:
    images = torch.arange(64).view(1, 1, 8, 8)
    made = loops.recurse(images, 3)
    assert made.flatten().sort().values.tolist() == list(range(64))
    whole = [made[..., y : y + 4, x : x + 4] for y in (0, 4) for x in (0, 4)]
    kept = [bool((part - part[..., :1, :1] == images[..., :4, :4]).all()) for part in whole]
    assert sum(kept) == 3  # quadrants that were moved as they are; the fourth was shuffled further


def test_the_pasted_box_comes_from_the_partner() -> None:
    random.seed(0)
    images = torch.full((2, 3, 32, 32), 1.0)
    images[1] = 2.0
    torch.manual_seed(1)
    made = loops.paste_resampled(images)
    torch.manual_seed(1)
    assert torch.randperm(2).tolist() == [1, 0]
    changed = made != images
    assert changed.any()
    assert torch.equal(changed[0], changed[1])  # one pair of boxes for the batch
    assert torch.allclose(made[0][changed[0]], torch.tensor(2.0))


def test_loops_draw_once_per_batch() -> None:
    batch = add_labels(torch.rand(2, 3, 16, 16), 2)
    with pytest.raises(UnfitError, match="draws once per batch"):
        loops.make_loop(centre("rmg"), batch)
    made = loops.make_loop(centre("jigsaw", per="batch"), batch)()
    assert made.shape == batch.images.shape
    assert not torch.equal(made, batch.images)
