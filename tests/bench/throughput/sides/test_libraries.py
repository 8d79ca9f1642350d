"""Other libraries are called with the case's settings, and name what they cannot do."""

from __future__ import annotations

import pytest
import torch

from bench.throughput.batch import NUM_CLASSES, Batch, UnfitError, add_labels
from bench.throughput.cases import Case, centre
from bench.throughput.sides import libraries


@pytest.fixture
def batch() -> Batch:
    return add_labels(torch.rand(4, 3, 16, 16), 4)


def test_timm_mixes_labels_and_keeps_the_batch(batch: Batch) -> None:
    pytest.importorskip("timm")
    images = batch.images.clone()
    mixed, targets = libraries.make_timm(centre("mixup", batch=4), batch)()
    assert (mixed.shape, targets.shape) == (images.shape, (4, NUM_CLASSES))
    assert torch.equal(batch.images, images)  # timm overwrites its input, so it gets a copy
    assert torch.allclose(targets.sum(1), torch.ones(4))


def test_torchvision_mixes_once_per_batch(batch: Batch) -> None:
    mixed, targets = libraries.make_torchvision(centre("cutmix", batch=4, per="batch"), batch)()
    assert (mixed.shape, targets.shape) == (batch.images.shape, (4, NUM_CLASSES))
    with pytest.raises(UnfitError, match="torchvision draws once per batch"):
        libraries.make_torchvision(centre("cutmix", batch=4), batch)


@pytest.mark.parametrize("name", ["jigsaw", "cutmix", "mixup"])
def test_kornia_makes_images_of_the_same_shape(name: str, batch: Batch) -> None:
    pytest.importorskip("kornia")
    made = libraries.make_kornia(centre(name, batch=4), batch)()
    images = made[0] if isinstance(made, tuple | list) else made
    assert images.shape == batch.images.shape


@pytest.mark.parametrize(
    "case", [centre("mixup", dtype="uint8"), centre("mixup", dtype="uint8", per="batch")], ids=lambda case: case.per
)
def test_whole_images_are_blended_as_floats_only(case: Case) -> None:
    pytest.importorskip("timm")
    batch = add_labels(torch.zeros(32, 3, 8, 8, dtype=torch.uint8), 32)
    with pytest.raises(UnfitError, match="timm's MixUp takes floating images only"):
        libraries.make_timm(case, batch)
    with pytest.raises(UnfitError, match="torchvision"):
        libraries.make_torchvision(case, batch)
