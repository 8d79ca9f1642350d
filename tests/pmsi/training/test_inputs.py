"""Inputs of the phases: pixels and targets of each, one buffer for all, and the maps of SnapMix."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mosaicaug import Targets, apply
from pmsi.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from pmsi.recipe import METHODS, Method
from pmsi.training.batches import BatchPlan, plan_epoch, take_local
from pmsi.training.inputs import PhaseInputs
from tests.helpers.small_run import RECIPE, make_dataset, make_fabric, make_session

SPLIT = make_dataset().train


def make_maps(images: Tensor, labels: Tensor) -> Tensor:
    return images.mean(1)[:, ::8, ::8].abs() + labels[: len(images), None, None]


def plan_batch(method: Method) -> BatchPlan:
    recipe = replace(RECIPE, augmentation=method, per="sample", mix_scope="phase")
    return next(plan_epoch(recipe, SPLIT.labels, seed=1, epoch=0))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [slice(None), slice(0, 2), slice(2, 4)])
def test_inputs_are_the_own_rows_of_each_phase(method: Method, rows: slice) -> None:
    batch = plan_batch(method)
    share = take_local(batch, rows)
    seen: list[Tensor] = []

    def measure(images: Tensor, labels: Tensor) -> Tensor:
        seen.extend([images.clone(), labels])
        return make_maps(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), labels)

    inputs = PhaseInputs(replace(RECIPE, augmentation=method), make_fabric(), measure)
    found = [(image.clone(), targets) for image, targets in inputs.make(share, SPLIT.images, share.index)]
    assert len(found) == len(batch.draws)
    maps = measure(seen[0], seen[1]) if seen else None
    for draw, (image, targets) in zip(batch.draws, found, strict=True):
        wanted = apply(
            SPLIT.images, draw.plan, index=batch.index, window=batch.window, mean=IMAGENET_MEAN, std=IMAGENET_STD
        )
        assert torch.equal(image, wanted[rows])
        expected = draw.targets(SPLIT.labels[batch.index], maps)
        if isinstance(expected, Targets):
            assert all(torch.equal(one[rows], other) for one, other in zip(expected, targets, strict=True))
        else:
            assert torch.equal(expected[rows], targets)  # type: ignore[arg-type]
    assert bool(seen) == (method == "snapmix")
    if seen:
        raw = apply(SPLIT.images[share.index], batch.draws[0].plan.identity(len(share.index), (32, 32)),
                    window=share.window, mean=IMAGENET_MEAN, std=IMAGENET_STD)  # fmt: skip
        assert torch.equal(seen[0], raw[: share.count])
        assert torch.equal(seen[1], batch.labels)


def test_phases_share_one_buffer() -> None:
    inputs = PhaseInputs(RECIPE, make_fabric())
    share = take_local(plan_batch("rmg"), slice(None))
    places = {image.data_ptr() for image, _ in inputs.make(share, SPLIT.images, share.index)}
    assert places == {inputs.buffer.data_ptr()}


def test_inputs_have_the_precision_of_the_run() -> None:
    batch = plan_batch("rmg")
    share = take_local(batch, slice(None))
    whole, half = (
        [image.clone() for image, _ in PhaseInputs(RECIPE, fabric).make(share, SPLIT.images, share.index)]
        for fabric in (make_fabric(), make_session("bf16").fabric)
    )
    assert [image.dtype for image in half] == [torch.bfloat16] * 4
    assert all(torch.equal(one.bfloat16(), other) for one, other in zip(whole, half, strict=True))


def test_snapmix_without_maps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"PhaseInputs: augmentation snapmix needs class activation maps; pass maps="):
        PhaseInputs(replace(RECIPE, augmentation="snapmix"), make_fabric())
