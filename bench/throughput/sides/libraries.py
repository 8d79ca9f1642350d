"""Kornia, torchvision and timm, called as their documentation says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.measure import Run
from bench.throughput.batch import MEAN, NUM_CLASSES, STD, Batch, UnfitError, need, pick
from bench.throughput.cases import Case


def make_kornia(case: Case, batch: Batch) -> Run:
    """The module itself: its containers refuse mixing with labels."""
    if not batch.images.is_floating_point():
        raise UnfitError("Kornia takes floating images only")
    module = _make_kornia_module(case, with_labels=True)
    if case.augmentation == "jigsaw":
        return lambda: module(batch.images)
    return lambda: module(batch.images, batch.labels)


def make_torchvision(case: Case, batch: Batch) -> Run:
    """transforms.v2, which draws once per batch."""
    if case.augmentation == "mixup" and not batch.images.is_floating_point():
        raise UnfitError("torchvision's MixUp takes floating images only")
    mix = _make_torchvision_mix(case)
    return lambda: mix(batch.images, batch.labels)


def make_timm(case: Case, batch: Batch) -> Run:
    """timm's Mixup, on a batch of its own that it overwrites."""
    mixup = need("timm.data.mixup", "timm").Mixup
    if case.batch % 2:
        raise UnfitError("timm needs an even batch")
    if case.augmentation == "mixup" and not batch.images.is_floating_point():
        raise UnfitError("timm's MixUp takes floating images only")
    alphas = {"mixup_alpha": float(case.augmentation == "mixup"), "cutmix_alpha": float(case.augmentation == "cutmix")}
    mode = "elem" if case.per == "sample" else "batch"
    mix = mixup(**alphas, mode=mode, label_smoothing=0.0, num_classes=NUM_CLASSES)
    images = batch.images.clone()
    return lambda: mix(images, batch.labels)


def make_kornia_pipeline(case: Case, batch: Batch) -> Run:
    """Pick, scale to 0..1, crop, flip, augment, normalise: Kornia's own modules one after the other."""
    augment = _make_kornia_module(case, with_labels=False)
    library = need("kornia.augmentation", "Kornia")
    mean, std = (torch.tensor(values) / 255 for values in (MEAN, STD))
    steps = [
        library.RandomCrop((case.size, case.size)),
        library.RandomHorizontalFlip(p=0.5),
        augment,
        library.Normalize(mean=mean, std=std),
    ]

    def run() -> Tensor:
        images = batch.images[pick(case, batch.images)].float() / 255
        for step in steps:
            images = step(images)
        return images

    return run


def make_torchvision_pipeline(case: Case, batch: Batch) -> Run:
    """Every image through v2's transforms as in a data loader, then the batch through CutMix."""
    if case.augmentation != "cutmix":
        raise UnfitError("torchvision has no such augmentation")
    mix, v2 = _make_torchvision_mix(case), need("torchvision.transforms.v2", "torchvision")
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
        picked = pick(case, batch.images).tolist()
        mixed: tuple[Tensor, Tensor] = mix(torch.stack([steps(batch.images[i]) for i in picked]), batch.labels)
        return mixed

    return run


def _make_kornia_module(case: Case, *, with_labels: bool) -> Callable[..., Any]:
    library = need("kornia.augmentation", "Kornia")
    options: dict[str, Any] = {"p": 1.0, "same_on_batch": case.per == "batch"}
    if case.augmentation == "jigsaw":
        return library.RandomJigsaw((case.level, case.level), ensure_perm=False, **options)  # type: ignore[no-any-return]
    if with_labels:
        options["data_keys"] = ["input", "class"]
    if case.augmentation == "cutmix":
        return library.RandomCutMixV2(use_correct_lambda=True, **options)  # type: ignore[no-any-return]
    if case.augmentation == "mixup":
        return library.RandomMixUpV2(**options)  # type: ignore[no-any-return]
    raise UnfitError("Kornia has no such augmentation")


def _make_torchvision_mix(case: Case) -> Callable[..., Any]:
    if case.per == "sample":
        raise UnfitError("torchvision draws once per batch")
    v2 = need("torchvision.transforms.v2", "torchvision")
    return {"cutmix": v2.CutMix, "mixup": v2.MixUp}[case.augmentation](num_classes=NUM_CLASSES)  # type: ignore[no-any-return]
