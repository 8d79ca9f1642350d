"""Kornia, torchvision and timm, called according to their documentation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.measure import Run
from bench.throughput.batch import MEAN, NUM_CLASSES, STD, Batch, UnfitError, draw_index, import_library
from bench.throughput.cases import Case


def make_kornia(case: Case, batch: Batch) -> Run:
    """Kornia's module by itself: its containers refuse mixing with labels."""
    if not batch.images.is_floating_point():
        raise UnfitError("Kornia takes floating images only")
    module = _make_kornia_module(case, with_labels=True)
    if case.augmentation == "jigsaw":
        return lambda: module(batch.images)
    return lambda: module(batch.images, batch.labels)


def make_torchvision(case: Case, batch: Batch) -> Run:
    """Mixing of torchvision's transforms.v2, which draws once per batch."""
    if case.augmentation == "mixup" and not batch.images.is_floating_point():
        raise UnfitError("torchvision's MixUp takes floating images only")
    mix = _make_torchvision_mix(case)
    return lambda: mix(batch.images, batch.labels)


def make_timm(case: Case, batch: Batch) -> Run:
    """Mixup of timm, on a copy of the batch: it overwrites its input."""
    mixup = import_library("timm.data.mixup", "timm").Mixup
    if case.batch % 2:
        raise UnfitError("timm needs an even batch")
    if case.augmentation == "mixup" and not batch.images.is_floating_point():
        raise UnfitError("timm's MixUp takes floating images only")
    mix = mixup(
        mixup_alpha=float(case.augmentation == "mixup"),
        cutmix_alpha=float(case.augmentation == "cutmix"),
        mode="elem" if case.per == "sample" else "batch",
        label_smoothing=0.0,
        num_classes=NUM_CLASSES,
    )
    images = batch.images.clone()
    return lambda: mix(images, batch.labels)


def make_kornia_pipeline(case: Case, batch: Batch) -> Run:
    """Pipeline of Kornia's own modules: pick, scale to 0..1, crop, flip, augment, normalise."""
    augment = _make_kornia_module(case, with_labels=False)
    library = import_library("kornia.augmentation", "Kornia")
    mean, std = (torch.tensor(values) / 255 for values in (MEAN, STD))
    steps = [
        library.RandomCrop((case.size, case.size)),
        library.RandomHorizontalFlip(p=0.5),
        augment,
        library.Normalize(mean=mean, std=std),
    ]

    def run() -> Tensor:
        images = batch.images[draw_index(case, batch.images)].float() / 255
        for step in steps:
            images = step(images)
        return images

    return run


def make_torchvision_pipeline(case: Case, batch: Batch) -> Run:
    """Pipeline of v2's transforms on every image, like in a data loader, then CutMix on the batch."""
    if case.augmentation != "cutmix":
        raise UnfitError("torchvision has no such augmentation")
    mix, v2 = _make_torchvision_mix(case), import_library("torchvision.transforms.v2", "torchvision")
    mean, std = ([value / 255 for value in values] for values in (MEAN, STD))
    steps = v2.Compose(
        [
            v2.RandomCrop(case.size),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=mean, std=std),
        ]
    )

    def run() -> tuple[Tensor, Tensor]:
        picked = draw_index(case, batch.images).tolist()
        mixed: tuple[Tensor, Tensor] = mix(torch.stack([steps(batch.images[i]) for i in picked]), batch.labels)
        return mixed

    return run


def _make_kornia_module(case: Case, *, with_labels: bool) -> Callable[..., Any]:
    library = import_library("kornia.augmentation", "Kornia")
    make: Callable[..., Callable[..., Any]]
    if case.augmentation == "jigsaw":
        make = partial(library.RandomJigsaw, (case.level, case.level), ensure_perm=False)
    elif case.augmentation == "cutmix":
        make = partial(library.RandomCutMixV2, use_correct_lambda=True)
    elif case.augmentation == "mixup":
        make = library.RandomMixUpV2
    else:
        raise UnfitError("Kornia has no such augmentation")
    if with_labels and case.augmentation != "jigsaw":
        make = partial(make, data_keys=["input", "class"])
    return make(p=1.0, same_on_batch=case.per == "batch")


def _make_torchvision_mix(case: Case) -> Callable[..., Any]:
    if case.per == "sample":
        raise UnfitError("torchvision draws once per batch")
    v2 = import_library("torchvision.transforms.v2", "torchvision")
    return {"cutmix": v2.CutMix, "mixup": v2.MixUp}[case.augmentation](num_classes=NUM_CLASSES)  # type: ignore[no-any-return]
