"""Our side of the training benchmark: the inputs and the trainer of `pmsi`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from bench.training.plain import Batches
from pmsi.data.dataset import Dataset, load_dataset
from pmsi.data.storage import make_store, to_device
from pmsi.recipe import Recipe
from pmsi.runtime.devices import open_fabric
from pmsi.runtime.session import Session
from pmsi.training.batches import plan_epoch, take_local
from pmsi.training.inputs import PhaseInputs
from pmsi.training.trainer import Trainer


class Input(Protocol):
    """Interface of a side's input: the mini-batches of an epoch."""

    def batches(self, epoch: int) -> Batches: ...


class OurInput:
    """Inputs of `Trainer` in float32, from its own `PhaseInputs`: each is overwritten when the next one is made.

    Args:
        folder: holds ``train`` and ``test``.
        cache: folder that keeps decoded images.
    """

    def __init__(self, folder: Path, recipe: Recipe, device: torch.device, cache: Path | None = None) -> None:
        dataset = load_dataset("folder", folder, resize=recipe.resize, cache=cache, say=lambda _: None)
        self.store, self.recipe = make_store(dataset.train, device), recipe
        self.inputs = PhaseInputs(recipe, open_fabric(device.type, "32"))  # type: ignore[arg-type]

    def batches(self, epoch: int) -> Batches:
        """Mini-batches of one epoch."""
        plans = plan_epoch(self.recipe, self.store.labels, seed=0, epoch=epoch)
        shares = [take_local(batch, slice(None)) for batch in plans]
        fetched = self.store.fetch(share.index for share in shares)
        for share, (images, index) in zip(shares, fetched, strict=True):
            inputs = (image for image, _ in self.inputs.make(share, images, index))
            yield inputs, to_device(share.batch.labels, self.store.device)


def make_trainer(dataset: Dataset, recipe: Recipe, device: str, setting: str, folder: Path) -> Trainer:
    """Trainer of `pmsi` in a setting such as "bf16, compiled"; it writes checkpoints below ``folder``."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    for left in checkpoints.iterdir():
        left.unlink()
    precision, _, compiled = setting.partition(", ")
    session = Session(open_fabric(device, precision), compile=bool(compiled))  # type: ignore[arg-type]
    return Trainer(recipe, dataset, weights="none", seed=0, identity={}, folder=checkpoints, session=session)
