"""Our side of the training benchmark: the inputs and the trainer of `pmsi`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from bench.training.plain import Batches
from pmsi.data import dataset as data
from pmsi.data.dataset import Dataset
from pmsi.data.preprocess import preprocess
from pmsi.data.storage import make_store, to_device
from pmsi.recipe import Recipe
from pmsi.runtime.devices import open_fabric
from pmsi.runtime.session import Session
from pmsi.training.batches import plan_epoch, take_local
from pmsi.training.trainer import Trainer


class Input(Protocol):
    """Interface of a side's input: the mini-batches of an epoch."""

    def batches(self, epoch: int) -> Batches: ...


class OurInput:
    """As `Trainer` makes its inputs, in float32: each is gone when the next one is made.

    Args:
        folder: holds ``train`` and ``test``.
        cache: folder that keeps decoded images.
    """

    def __init__(self, folder: Path, recipe: Recipe, device: torch.device, cache: Path | None = None) -> None:
        dataset = data.load_dataset("folder", folder, resize=recipe.resize, cache=cache, say=lambda _: None)
        self.store, self.recipe = make_store(dataset.train, device), recipe
        shape = (recipe.batch_size, 3, recipe.crop, recipe.crop)
        self.buffer = torch.empty(shape, device=device, memory_format=torch.channels_last)

    def batches(self, epoch: int) -> Batches:
        """One epoch."""
        plans = list(plan_epoch(self.recipe, len(self.store.labels), seed=0, epoch=epoch))
        shares = [take_local(iteration, slice(None)) for iteration in plans]
        fetched = self.store.fetch(i.index[share.entries] for i, share in zip(plans, shares, strict=True))
        for iteration, share, (images, index) in zip(plans, shares, fetched, strict=True):
            window = iteration.window[share.entries]
            inputs = (preprocess(images, plan, index, window, out=self.buffer) for plan in share.plans)
            yield inputs, to_device(self.store.labels[iteration.index], self.store.device)


def make_trainer(dataset: Dataset, recipe: Recipe, device: str, setting: str, folder: Path) -> Trainer:
    """Trainer of `pmsi` in a setting such as "bf16, compiled"; it writes checkpoints below ``folder``."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    for left in checkpoints.iterdir():
        left.unlink()
    precision, _, compiled = setting.partition(", ")
    session = Session(open_fabric(device, precision), compile=bool(compiled))  # type: ignore[arg-type]
    return Trainer(recipe, dataset, weights="none", seed=0, identity={}, folder=checkpoints, session=session)
