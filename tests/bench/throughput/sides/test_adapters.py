"""Our augmentations inside other libraries' interfaces return images and mixed labels."""

from __future__ import annotations

import pytest
import torch

from bench.throughput.batch import NUM_CLASSES, Batch, add_labels
from bench.throughput.cases import PEERS, centre
from bench.throughput.sides import adapters

IMAGES = torch.rand(4, 3, 32, 32)


@pytest.fixture
def batch() -> Batch:
    return add_labels(IMAGES.clone(), 4)


@pytest.mark.parametrize("name", PEERS)
def test_torchvision_gets_images_and_labels(name: str, batch: Batch) -> None:
    images, labels = adapters.make_torchvision_door(centre(name, level=2 if name == "rmg" else None, batch=4), batch)()
    assert images.shape == IMAGES.shape
    assert not torch.equal(images, IMAGES)
    assert (labels is not batch.labels) == (name in ("cutmix", "mixup", "snapmix"))


@pytest.mark.parametrize("name", PEERS)
def test_timm_gets_dense_targets(name: str, batch: Batch) -> None:
    images, targets = adapters.make_timm_door(centre(name, batch=4), batch)()
    assert (images.shape, targets.shape) == (IMAGES.shape, (4, NUM_CLASSES))


@pytest.mark.parametrize("name", PEERS)
def test_kornia_gets_labels_that_follow(name: str, batch: Batch) -> None:
    pytest.importorskip("kornia")
    images, labels = adapters.make_kornia_door(centre(name, batch=4), batch)()
    assert images.shape == IMAGES.shape
    assert len(labels) == 4
