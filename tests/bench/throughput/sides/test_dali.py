"""DALI's sides: images come back in our layout, and what DALI lacks is a reason."""

from __future__ import annotations

import pytest
import torch

from bench.throughput.batch import STORED, UnfitError, add_labels
from bench.throughput.cases import centre
from bench.throughput.sides import dali

pytest.importorskip("nvidia.dali")


def test_a_node_rearranges_the_images() -> None:
    images = torch.arange(4 * 3 * 16 * 16).view(4, 3, 16, 16).float()
    case = centre("jigsaw", level=4, batch=4, size=16)
    made = dali.read_images(dali.make_dali(case, add_labels(images, 4))()[0])
    assert made.shape == images.shape
    assert not torch.equal(made, images)
    for own, new in zip(images, made, strict=True):
        assert torch.equal(own.flatten(1).sort(1).values, new.flatten(1).sort(1).values)


def test_a_pipeline_crops_and_normalises() -> None:
    images = torch.full((STORED, 3, 32, 32), 124, dtype=torch.uint8)
    case = centre("rmg", task="pipeline", level=1, batch=2, size=28)
    made = dali.read_images(dali.make_dali_pipeline(case, add_labels(images, 2))()[0])
    assert (made.shape, made.dtype) == ((2, 3, 28, 28), torch.float32)
    assert made[:, 0].abs().max() < 1e-3  # 124 is the mean of the first channel


def test_bfloat16_is_refused() -> None:
    with pytest.raises(UnfitError, match="DALI has no bfloat16 here"):
        dali.make_dali(centre("rmg", dtype="bfloat16"), add_labels(torch.zeros(1, 3, 8, 8), 1))
