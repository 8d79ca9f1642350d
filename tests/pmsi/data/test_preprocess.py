"""Network inputs: cropped, normalised and cast as torchvision does it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from mosaicaug import Plan
from pmsi.data.preprocess import center_window, describe_preprocessing, preprocess
from pmsi.recipe import Recipe


def draw_images() -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_inputs_are_those_of_torchvision() -> None:
    images, index = draw_images(), torch.tensor([3, 0])
    window = torch.tensor([[1, 2, 0], [4, 0, 1]])
    found = preprocess(images, Plan.identity(2, (8, 8)), index, window)
    crops = torch.stack([images[3, :, 1:9, 2:10], images[0, :, 4:12, 0:8].flip(-1)])
    wanted = tv.normalize(tv.to_dtype(crops, scale=True), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_inputs_are_cast_once(dtype: torch.dtype) -> None:
    images, index, window = draw_images(), torch.arange(2), torch.zeros(2, 3, dtype=torch.int64)
    plan = Plan.identity(2, (12, 12))
    found = preprocess(images, plan, index, window, dtype)
    assert torch.equal(found, preprocess(images, plan, index, window).to(dtype))


def test_inputs_are_written_where_they_are_wanted() -> None:
    images, index, window = draw_images(), torch.arange(2), torch.zeros(2, 3, dtype=torch.int64)
    out = torch.empty(2, 3, 12, 12).to(memory_format=torch.channels_last)
    assert preprocess(images, Plan.identity(2, (12, 12)), index, window, out=out) is out
    assert torch.equal(out, preprocess(images, Plan.identity(2, (12, 12)), index, window))


def test_test_images_are_cropped_at_their_centre() -> None:
    recipe = replace(Recipe(), resize=36, crop=32)
    assert center_window(recipe, 3).tolist() == [[2, 2, 0]] * 3


@pytest.mark.parametrize(("whole", "side"), [(False, 32), (True, 36)])
def test_an_exported_network_is_told_its_preprocessing(whole: bool, side: int) -> None:
    """By names that files of every version have; means and deviations are of bytes."""
    assert describe_preprocessing(Recipe(resize=36, crop=32, test_whole=whole)) == {
        "resize": 36,
        "filter": "bilinear, antialiased, in bytes",
        "crop": side,
        "mean": pytest.approx([123.675, 116.28, 103.53]),
        "std": pytest.approx([58.395, 57.12, 57.375]),
    }
