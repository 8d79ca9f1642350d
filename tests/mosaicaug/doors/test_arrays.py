"""Arrays whose channels come last: the pixels of the tensors' door, whatever way they run in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mosaicaug import Augmentation, CutMix, Jigsaw, MixUp, RecursiveMosaic, SnapMix, apply
from mosaicaug.arrays import apply_array, augment_array

MAPS = torch.rand(4, 3, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("aug", [RecursiveMosaic(2), Jigsaw(3), CutMix(), MixUp(), SnapMix()], ids=repr)
def test_pixels_are_those_of_tensors(aug: Augmentation, dtype: type) -> None:
    images: Any = (255 * np.random.default_rng(0).random((4, 24, 18, 3))).astype(dtype)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    labels = torch.arange(4)
    wanted, targets = aug(tensors, labels, maps=MAPS, generator=torch.Generator().manual_seed(3))
    before = images.copy()
    made, soft = augment_array(aug, images, labels.numpy(), maps=MAPS, generator=torch.Generator().manual_seed(3))
    assert isinstance(made, np.ndarray)
    assert made.dtype == dtype
    assert np.array_equal(made, wanted.permute(0, 2, 3, 1).numpy())
    assert torch.equal(torch.as_tensor(getattr(soft, "weight_b", 0)), torch.as_tensor(getattr(targets, "weight_b", 0)))
    assert np.array_equal(images, before)


@pytest.mark.parametrize("view", [lambda a: a[::-1, ::-1], lambda a: a[:, :, ::-1], lambda a: a.transpose(1, 0, 2)])
def test_views_that_run_any_way_are_taken(view: Any) -> None:
    image = view(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))
    plan = RecursiveMosaic(2).sample((1, 3, 16, 16))
    wanted = apply(torch.from_numpy(image.copy()).permute(2, 0, 1)[None], plan)[0].permute(1, 2, 0)
    assert np.array_equal(apply_array(image, plan), wanted.numpy())
    frozen = image.copy()
    frozen.flags.writeable = False
    assert np.array_equal(apply_array(frozen, plan), wanted.numpy())
    grey = np.ascontiguousarray(image[..., 0])
    assert np.array_equal(apply_array(grey, plan), wanted[..., 0].numpy())


def test_mistakes_are_named() -> None:
    with pytest.raises(TypeError, match="augment_array: images must be an array of numbers, got Tensor"):
        augment_array(Jigsaw(2), torch.zeros(4, 4, 3))
    with pytest.raises(TypeError, match="apply_array: images must be an array of numbers, got list"):
        apply_array([[0]], Jigsaw(2).sample((1, 1, 4, 4)))
    with pytest.raises(ValueError, match=r"must be \[B, H, W, C\], \[H, W, C\] or \[H, W\], got \[3\]"):
        augment_array(Jigsaw(2), np.zeros(3))
    with pytest.raises(ValueError, match="mixing images mixes labels too"):
        augment_array(CutMix(), np.zeros((2, 8, 8, 3)))
