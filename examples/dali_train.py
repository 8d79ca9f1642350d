"""Trains `pmsi` from JPEGs that DALI reads: `python examples/dali_train.py FOLDER --classes 10 --epochs 2`.

One pipeline reads, decodes, resizes, crops, mirrors, makes a mosaic for every phase and normalises. FOLDER is in
CUB-200-2011's text layout, or holds a folder of images for each class, of which every fifth is tested on.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from nvidia.dali import fn
from nvidia.dali.pipeline import Pipeline, pipeline_def
from nvidia.dali.plugin.base_iterator import LastBatchPolicy
from nvidia.dali.plugin.pytorch import DALIGenericIterator
from nvidia.dali.types import DALIDataType, DALIImageType

from mosaicaug.dali import recursive_mosaic
from pmsi.data import layouts
from pmsi.data.dataset import Dataset
from pmsi.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from pmsi.data.storage import Split
from pmsi.evaluation.accuracy import evaluate
from pmsi.recipe import RECIPES, Recipe
from pmsi.runtime.devices import open_fabric
from pmsi.runtime.session import Session
from pmsi.training.phases import list_phases
from pmsi.training.trainer import Trainer

Entries = list[tuple[str, int]]  # file and label of each image


def main(
    folder: Annotated[Path, tyro.conf.Positional],
    *,
    classes: int | None = None,
    epochs: int = 4,
    size: int = 96,
    batch: int = 32,
    weights: str = "none",
    seed: int = 0,
    shard: int = 0,
    shards: int = 1,
) -> float:
    """Train RMG-PMSI, print losses and accuracies, and return the last accuracy of Mix in percent.

    Args:
        folder: of the images.
        classes: how many of them to learn; by default all.
        epochs: passes over the training images.
        size: of the crops, px; images are resized to an eighth more.
        batch: images for each update.
        weights: of MobileNetV2: a file, "imagenet" or "none".
        seed: of everything random.
        shard: which part of the training images to read.
        shards: how many parts there are.
    """
    fabric = open_fabric("auto" if torch.cuda.is_available() else "cpu")
    device = fabric.device.index
    names, train, test = list_images(folder.expanduser(), classes)
    quick = RECIPES["quick"] if weights != "none" else replace(RECIPES["quick"], lr_backbone=0.05, lr_new=0.05)
    recipe = replace(quick, epochs=epochs, crop=size, resize=size * 9 // 8, batch_size=batch)
    # The trainer counts its training images, DALI shows them.
    labels = torch.tensor([label for _, label in train[: -(-len(train) // shards)]])
    unseen = Split(torch.empty(len(labels), 3, 0, 0, dtype=torch.uint8), labels)
    pipe = make_test_pipeline(recipe, test, batch_size=batch, num_threads=2, device_id=device, seed=seed)
    dataset = Dataset("folder", names, unseen, read_test(pipe), protocol="")
    with tempfile.TemporaryDirectory() as empty:
        session = Session(fabric)
        trainer = Trainer(recipe, dataset, weights=weights, seed=seed, identity={}, folder=Path(empty), session=session)
    share = make_train_pipeline(
        recipe, train, shard, shards, seed, batch_size=batch, num_threads=2, device_id=device, seed=seed
    )
    phases = [f"phase {number}" for number, _ in enumerate(trainer.phases, 1)]
    batches = DALIGenericIterator(
        share, [*phases, "labels"], reader_name="reader", last_batch_policy=LastBatchPolicy.DROP, auto_reset=True
    )
    for epoch in range(1, epochs + 1):
        trainer.objective.train()
        losses = []
        for [seen] in batches:
            labels = fabric.to_device(seen["labels"][:, 0].long())
            # Height, width, channels in memory, as the network likes it, though torch writes channels first.
            losses.append(trainer.step_phases([(seen[phase].permute(0, 3, 1, 2), labels) for phase in phases]))
            trainer.schedule.step()
        tested = evaluate(trainer.network, trainer.test, recipe, session)
        shown = " ".join(f"{loss:.3f}" for loss in torch.stack(losses).mean(0).tolist())
        print(f"epoch {epoch}: losses {shown}; test accuracy Concat {tested.concat:.1f}%, Mix {tested.mix:.1f}%")
    return tested.mix


@pipeline_def
def make_train_pipeline(recipe: Recipe, entries: Entries, shard: int, shards: int, first_seed: int) -> tuple[Any, ...]:
    """A normalised batch, HWC, for each phase, and labels ``[1]``."""
    images, labels = read(entries, recipe, random_shuffle=True, shard_id=shard, num_shards=shards)
    y, x, flip = fn.random.uniform(range=[0, 1]), fn.random.uniform(range=[0, 1]), fn.random.coin_flip()
    window: dict[str, Any] = {"crop": [recipe.crop] * 2, "crop_pos_y": y, "crop_pos_x": x, "mirror": flip}
    crops = fn.crop_mirror_normalize(images, **window, dtype=DALIDataType.UINT8, output_layout="HWC")
    mosaics = [
        recursive_mosaic(
            crops, phase.recursions, per=recipe.per, permutation=recipe.permutation, seed=first_seed + number
        )
        for number, phase in enumerate(list_phases(recipe))
    ]
    normal: dict[str, Any] = {
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "dtype": DALIDataType.FLOAT,
        "output_layout": "HWC",
    }
    return *(fn.crop_mirror_normalize(mosaic, **normal) for mosaic in mosaics), labels


@pipeline_def
def make_test_pipeline(recipe: Recipe, entries: Entries) -> tuple[Any, ...]:
    """Resized images, HWC, in order."""
    return read(entries, recipe)


def read(entries: Entries, recipe: Recipe, **order: Any) -> tuple[Any, Any]:
    """Decoded and resized images, uint8 HWC, and their labels; the last batch is filled up with its last image."""
    files, labels = zip(*entries, strict=True)
    encoded, label = fn.readers.file(files=files, labels=labels, name="reader", pad_last_batch=True, **order)
    images = fn.decoders.image(
        encoded,
        device="mixed" if torch.cuda.is_available() else "cpu",
        output_type=DALIImageType.RGB,
        adjust_orientation=True,  # upright by EXIF, as `pmsi` reads them
    )
    return fn.resize(images, size=[recipe.resize] * 2), label


def read_test(pipe: Pipeline) -> Split:
    """Test images in memory, as `evaluate` wants them."""
    batches = DALIGenericIterator(
        pipe, ["images", "labels"], reader_name="reader", last_batch_policy=LastBatchPolicy.PARTIAL
    )
    parts = [one for [one] in batches]
    images, labels = (torch.cat([part[name] for part in parts]) for name in ("images", "labels"))
    return Split(images.permute(0, 3, 1, 2).contiguous(), labels[:, 0].long())


def list_images(folder: Path, classes: int | None) -> tuple[tuple[str, ...], Entries, Entries]:
    """Names of classes, training images in one random order, which shards are cut from, and test images."""
    listing = layouts.list_images("cub" if (folder / "images.txt").exists() else "folder", folder)
    names = listing.classes[:classes]
    train, test = (
        [(str(path), label) for path, label in entries if label < len(names)]
        for entries in (listing.train, listing.test)
    )
    random.Random(0).shuffle(train)
    return names, train, test


if __name__ == "__main__":
    tyro.cli(main)
