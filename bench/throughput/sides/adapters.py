"""Our augmentations inside the interfaces of other libraries, labels included; `dali` holds those for DALI."""

from __future__ import annotations

from typing import Any

from bench.measure import Run
from bench.throughput.batch import NUM_CLASSES, Batch, import_library
from bench.throughput.cases import Case
from bench.throughput.sides.ours import make_augmentation
from mosaicaug import Augmentation, SnapMix


def make_torchvision_door(case: Case, batch: Batch) -> Run:
    """`V2Transform` on a ``tv_tensors.Image`` and labels."""
    images = import_library("torchvision.tv_tensors", "torchvision").Image(batch.images)
    transform = import_library("mosaicaug.torchvision", "torchvision").V2Transform(_make_with_maps(case, batch))
    return lambda: transform(images, batch.labels)


def make_timm_door(case: Case, batch: Batch) -> Run:
    """Mixup in timm's interface: dense targets with label smoothing."""
    mixup = import_library("mosaicaug.timm", "timm").Mixup(
        num_classes=NUM_CLASSES, augmentation=_make_with_maps(case, batch)
    )
    return lambda: mixup(batch.images, batch.labels)


def make_kornia_door(case: Case, batch: Batch) -> Run:
    """Operation in our `AugmentationSequential`, which mixes the labels too."""
    library = import_library("mosaicaug.kornia", "Kornia")
    classes: dict[str, Any] = {
        "rmg": library.RandomRecursiveMosaic,
        "jigsaw": library.RandomJigsaw,
        "cutmix": library.RandomCutMix,
        "mixup": library.RandomMixUp,
        "snapmix": library.RandomSnapMix,
    }
    levels = () if case.level is None else (case.level,)
    maps = {"cam": lambda *_: batch.maps} if case.augmentation == "snapmix" else {}
    operation = classes[case.augmentation](*levels, same_on_batch=case.per == "batch", **maps)
    container = library.AugmentationSequential(operation, data_keys=["input", "class"])
    return lambda: container(batch.images, batch.labels)


def _make_with_maps(case: Case, batch: Batch) -> Augmentation:
    aug = make_augmentation(case)
    if isinstance(aug, SnapMix):
        aug.cam = lambda *_: batch.maps
    return aug
