"""Our sides, and the plain copy that they are compared with."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from bench.measure import Run
from bench.throughput.batch import MEAN, STD, Batch, draw_index
from bench.throughput.cases import Case
from mosaicaug import Augmentation, CutMix, Jigsaw, MixUp, RecursiveMosaic, SnapMix, apply


def make_augmentation(case: Case) -> Augmentation:
    """Augmentation of a case."""
    classes: dict[str, Any] = {
        "rmg": RecursiveMosaic,
        "jigsaw": Jigsaw,
        "cutmix": CutMix,
        "mixup": MixUp,
        "snapmix": SnapMix,
    }
    levels = () if case.level is None else (case.level,)
    aug: Augmentation = classes[case.augmentation](*levels, per=case.per)
    return aug


def make_ours(case: Case, batch: Batch) -> Run:
    """Call of the augmentation itself: draws, allocates its output, mixes labels."""
    aug = make_augmentation(case)
    if not aug.mixes:
        return lambda: aug(batch.images)
    maps = {"maps": batch.maps} if isinstance(aug, SnapMix) else {}
    return lambda: aug(batch.images, batch.labels, **maps)


def make_ours_out(case: Case, batch: Batch) -> Run:
    """Call that draws and writes into an allocated buffer."""
    aug, out = make_augmentation(case), torch.empty_like(batch.images)
    return lambda: apply(batch.images, aug.sample(batch.images.shape), out=out)


def make_copy(case: Case, batch: Batch) -> Run:  # noqa: ARG001
    """Copy of the images into an allocated buffer by `copy_`: the same traffic in bytes."""
    out = torch.empty_like(batch.images)
    return lambda: out.copy_(batch.images)


def make_draw(case: Case, batch: Batch) -> Run:  # noqa: ARG001
    """Draw of a plan, not applied."""
    aug = make_augmentation(case)
    return lambda: aug.sample(case.shape)


def make_pipeline(case: Case, batch: Batch) -> Run:
    """Pipeline in one call of `apply`, draws included: pick, crop, flip, augment, normalise, cast."""
    return _make_pipeline(case, batch, None)


def make_pipeline_out(case: Case, batch: Batch) -> Run:
    """Pipeline in one call of `apply`, into an allocated buffer."""
    return _make_pipeline(case, batch, torch.empty(case.shape, dtype=case.torch_dtype, device=batch.images.device))


def make_pipeline_copy(case: Case, batch: Batch) -> Run:
    """Copy that reads and writes the pipeline's smallest traffic in bytes."""
    assert case.bytes is not None
    source = batch.images.new_zeros(case.bytes // 2)
    out = torch.empty_like(source)
    return lambda: out.copy_(source)


def count_plan_bytes(case: Case) -> int:
    """Memory of a plan's tensors in bytes."""
    plan = make_augmentation(case).sample(case.shape)
    values = (getattr(plan, field.name) for field in dataclasses.fields(plan))
    return sum(value.nbytes for value in values if isinstance(value, Tensor))


def draw_window(case: Case, stored: Tensor) -> Tensor:
    """Random crops and flips of a batch: int64 ``[B, 3]``, y0, x0 and flip, on the CPU."""
    room = stored.shape[-1] - case.size
    return torch.cat([torch.randint(room + 1, (case.batch, 2)), torch.randint(2, (case.batch, 1))], 1)


def _make_pipeline(case: Case, batch: Batch, out: Tensor | None) -> Run:
    aug, stored, dtype = make_augmentation(case), batch.images, case.torch_dtype

    def run() -> Tensor:
        index, window, plan = draw_index(case, stored), draw_window(case, stored), aug.sample(case.shape)
        return apply(stored, plan, index=index, window=window, mean=MEAN, std=STD, dtype=dtype, out=out)

    return run
