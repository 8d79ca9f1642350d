"""What `test_processes.py` has several processes do: `torchrun tests/ranks.py FOLDER JOB`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import pmsi.models.registry
import pmsi.training.trainer
from mosaicaug import Plan
from pmsi.data.preprocess import center_window, preprocess
from pmsi.data.storage import Split
from pmsi.evaluation.accuracy import evaluate
from pmsi.models.base import Logits
from pmsi.recipe import Method, Recipe
from pmsi.runtime.devices import open_fabric
from pmsi.runtime.processes import Processes
from pmsi.runtime.seeding import make_generator
from pmsi.runtime.session import Session
from pmsi.runtime.signals import Stopped
from tests.helpers.small_run import RECIPE, Watch, make_backbone, make_dataset, make_trainer

# Groups of four images: one process's share where there are two, ghost batch-norm where there is one. (Groups of two
# are normalised to -1 and 1 whatever they are, so that rounding grows to all of the loss in three batches.)
EQUAL = replace(RECIPE, resize=68, crop=64, batch_size=8, dropout=0.0, batch_norm_images=4, per="sample")
EQUAL = replace(EQUAL, lr_backbone=1e-4, lr_new=1e-3, ema_decay=0.5)
METHODS: tuple[Method, ...] = ("rmg", "cutmix", "snapmix")
COUNTS = (1, 7, 16)  # of test images: fewer than processes, and last batches of one


class Signal(Watch):
    """Sends ``number`` to the process of ``rank`` at batch ``place[1]`` of epoch ``place[0]``."""

    def __init__(self, number: int, rank: int, make_store: tuple[int, int]) -> None:
        super().__init__()
        self.number, self.here, self.place = number, rank == int(os.environ.get("RANK", "0")), make_store

    def on_batch(self, done: int, total: int, losses: Sequence[float]) -> None:
        super().on_batch(done, total, losses)
        if self.here and (self.done + 1, done) == self.place:
            os.kill(os.getpid(), self.number)


class Brightness(nn.Module):
    """Predicts the first pixel."""

    def forward(self, images: Tensor) -> Logits:
        grey = images[:, 0, 0, 0] * 0.229 * 255 + 0.485 * 255
        return Logits((), -(grey[:, None] - torch.arange(256)).abs())


def make_equal_trainer(folder: Path, recipe: Recipe, fabric: Fabric) -> pmsi.training.trainer.Trainer:
    dataset = make_dataset(side=68, train_images=24)
    for split in (dataset.train, dataset.test):  # what can be learnt is predicted with a margin
        split.images.div_(4, rounding_mode="floor").add_(split.labels.byte()[:, None, None, None] * 90)
    return make_trainer(folder, recipe, dataset=dataset, session=Session(fabric))


def train_all(folder: Path, fabric: Fabric) -> dict[str, Any]:
    """Histories and predictions of all methods, with batch-norm in groups and on running statistics."""
    found: dict[str, Any] = {}
    for method in METHODS:
        for groups in (True, False):
            name = f"{method}-{'groups' if groups else 'running'}"
            recipe = replace(EQUAL, augmentation=method, batch_norm_images=4 if groups else None)
            trainer = make_equal_trainer(folder / name, recipe, fabric)
            if not groups:
                keep_statistics(trainer.network)
            ended = trainer.run(Watch())
            buffers = [*trainer.network.buffers(), *trainer.tested.buffers()]
            statistics = torch.cat([buffer.flatten().float() for buffer in buffers])
            found[name] = {"history": trainer.history, "predictions": ended.mix_predictions, "statistics": statistics}
            found[name]["logits"] = predict(trainer)
    return found


def predict(trainer: pmsi.training.trainer.Trainer) -> Tensor:
    """Mix logits of the test images, ``[N, K]``."""
    (images, index), *_ = trainer.test.fetch([torch.arange(len(trainer.test.labels))])
    plan = Plan.identity(len(index), (trainer.recipe.crop,) * 2)
    with torch.inference_mode():
        logits: Logits = trainer.tested.eval()(
            preprocess(images, plan, index, center_window(trainer.recipe, len(index)))
        )
    return logits.mix


def keep_statistics(network: nn.Module) -> None:
    """Batch-norm on running statistics, in training too."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            generator = make_generator(module.num_features)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(torch.rand(module.num_features, generator=generator) - 0.5)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            module.eval()
            module.train = lambda *_, module=module: module  # type: ignore[method-assign]


def test_counts(fabric: Fabric) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for count in COUNTS:
        images = (torch.arange(count) * 9 % 250).byte()[:, None, None, None].expand(count, 3, 36, 36).contiguous()
        split = Split(images, torch.arange(count) * 9 % 250)
        ended = evaluate(Brightness(), split, RECIPE, Session(fabric))
        found[count] = (ended.concat, ended.mix_predictions)
    return found


def list_refusals(folder: Path, fabric: Fabric) -> list[str]:
    """What each process says to what cannot be."""
    rank = fabric.global_rank
    asked: list[Any] = [
        lambda: make_trainer(folder, replace(RECIPE, lr_new=0.1 + rank), session=Session(fabric)),
        lambda: make_trainer(folder, replace(RECIPE, batch_size=3), session=Session(fabric)),
        lambda: make_trainer(folder, replace(RECIPE, batch_norm_images=4), session=Session(fabric)),
        lambda: Processes(fabric).take_turns(lambda: fail(rank == 0)),
    ]
    said = []
    for ask in asked:
        try:
            ask()
        except ValueError as error:
            said.append(str(error))
    return said


def fail(really: bool) -> None:
    if really:
        raise ValueError("only here")


def main(folder: Path, job: str) -> int:
    vars(pmsi.models.registry)["make_backbone"] = make_backbone
    torch.set_num_threads(1)
    fabric = open_fabric("cpu")
    if job == "compare":
        found = {
            "runs": train_all(folder, fabric),
            "tests": test_counts(fabric),
            "refused": list_refusals(folder, fabric),
        }
        torch.save(found, folder / f"rank{fabric.global_rank}.pt")
        return 0
    trainer = make_equal_trainer(folder, replace(EQUAL, epochs=4), fabric)
    number = {"kill": signal.SIGKILL, "stop": signal.SIGTERM}[job]
    try:
        trainer.run(Signal(number, 1, (2, 2)))
    except Stopped as stopped:
        print(f"stopped {len(trainer.history)} {trainer.epoch.done}", flush=True)
        return 128 + stopped.signal
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
