"""A run's folder: its identity and lock, and the results that are written to and read from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from torch import Tensor

from pmsi.data.dataset import Dataset
from pmsi.evaluation.accuracy import Evaluation
from pmsi.experiments.source import Source, describe_weights
from pmsi.models.base import Network
from pmsi.models.registry import read_network
from pmsi.recipe import Recipe
from pmsi.runtime.checkpoints import check_identity, load_checkpoint
from pmsi.runtime.files import PART, write_json
from pmsi.runtime.processes import Processes
from pmsi.training.batches import count_batches
from pmsi.training.trainer import Trainer

LOCK = ".lock"  # of a run folder: held while a process trains there


def open_network(folder: Path, recipe: Recipe, num_classes: int, fabric: Fabric) -> Network:
    """A finished run's network, on the device, in eval mode."""
    network = read_network(load_checkpoint(folder / "last.ckpt"), recipe, num_classes)
    network.to(fabric.device).eval()
    return network


def read_result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return {"folder": folder.name, **{name: value for name, value in found.items() if name != "curve"}}


def read_predictions(folder: Path, recipe: Recipe, runs: Sequence[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Labels ``[N]`` and predictions ``[S, N]`` of a row's runs: Mix, or Concat where the stages are not trained."""
    read = [json.loads((folder / run["folder"] / "predictions.json").read_text(encoding="utf-8")) for run in runs]
    what = "mix" if recipe.progressive else "concat"
    return torch.tensor(read[0]["labels"]), torch.tensor([one[what] for one in read])


class FolderBusyError(ValueError):
    """Another process is at a run."""


def make_identity(source: Source, dataset: Dataset, recipe: Recipe, fabric: Fabric) -> dict[str, Any]:
    """What two runs must share to be one run continued.

    Raises:
        ValueError: the training images do not fill one batch.
    """
    count_batches(recipe, len(dataset.train.labels))
    return {
        **list_settings(source, recipe),
        "classes": len(dataset.classes),
        "train_images": len(dataset.train.labels),
        "test_images": len(dataset.test.labels),
        "data_crc32": dataset.train.crc32 ^ dataset.test.crc32,
        "precision": fabric.strategy.precision.precision,
    }


def check_folder(folder: Path, source: Source, recipe: Recipe, *, rows: bool) -> None:
    """Whether ``folder`` is free or holds this very run, as far as can be told before the data are read.

    Args:
        rows: the folder is for runs that differ in their augmentation.

    Raises:
        ValueError: it holds another run, or other files.
    """
    config = folder / "config.json"
    if config.exists():
        found = json.loads(config.read_text(encoding="utf-8"))
        wanted = list_settings(source, replace(recipe, augmentation="none") if rows else recipe)
        check_identity({name: found.get(name) for name in wanted}, wanted, folder)
    elif folder.exists() and any(path.name != LOCK and path.suffix != PART for path in folder.iterdir()):
        raise ValueError(f"{folder} holds other files and no config.json; choose another --run folder")


def keep_result(folder: Path, dataset: Dataset, trainer: Trainer, evaluation: Evaluation) -> dict[str, Any]:
    best = max(trainer.history, key=lambda record: float(record["mix"]))
    result = {
        "seed": trainer.seed,
        "concat": evaluation.concat,
        "mix": evaluation.mix,
        "stages": list(evaluation.stages),
        "best_epoch": best["epoch"],
        "best_mix": best["mix"],
        "seconds": sum(record["seconds"] for record in trainer.history),
        "curve": trainer.history,
    }
    predictions = {
        "labels": dataset.test.labels.tolist(),
        "concat": evaluation.concat_predictions.tolist(),
        "mix": evaluation.mix_predictions.tolist(),
    }
    if trainer.fabric.is_global_zero:
        write_json(folder / "predictions.json", predictions)
        write_json(folder / "result.json", result)
    trainer.fabric.barrier()  # whoever looks for the result finds it
    return result


@contextmanager
def lock_folder(folder: Path, fabric: Fabric, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes out of ``folder``; the system lets go when the process ends, however it does.

    Raises:
        BusyError: another process holds it, and this one is not to wait for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, busy = FileLock(folder / LOCK), False
    if fabric.is_global_zero:
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            busy = True
    if Processes(fabric).max_over_processes(int(busy)):
        raise FolderBusyError(f"another process is training in {folder}; wait for it, or choose another --run folder")
    try:
        if fabric.is_global_zero:
            for left in folder.glob(f".*{PART}"):  # by a process that was killed
                left.unlink()
        yield
    finally:
        lock.release()


def list_settings(source: Source, recipe: Recipe) -> dict[str, Any]:
    return {
        "data": source.data,
        "root": None if source.root is None else str(Path(source.root).resolve()),
        "hold_out": source.hold_out,
        "train_per_class": source.train_per_class,
        "skip_unreadable": source.skip_unreadable,
        "weights": describe_weights(source.find_weights(recipe.backbone)),
        **{f"recipe.{name}": value for name, value in recipe.to_dict().items()},
    }


def write_identity(folder: Path, identity: dict[str, Any], fabric: Fabric) -> None:
    """Write down what the folder is for, or see that it is for this; all processes have looked into it before."""
    config = folder / "config.json"

    def write_identity() -> None:
        if config.exists():
            check_identity(json.loads(config.read_text(encoding="utf-8")), identity, folder)
        else:
            write_json(config, identity)

    fabric.barrier()
    Processes(fabric).take_turns(write_identity)
