"""Images per second of the training input and of whole training steps, ours and plain."""

from __future__ import annotations

import gc
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.measure import find_peak, make_clock
from bench.results import Row, round_figure
from bench.training.ours import Input, OurInput, make_trainer
from bench.training.plain import PlainInput, PlainTrainer
from pmsi.data import dataset as data
from pmsi.data.dataset import Dataset
from pmsi.models.registry import make_network
from pmsi.recipe import RECIPES, Recipe
from pmsi.training.batches import count_batches, plan_epoch

# The backbone learns from the first epoch on: ours would skip gradients that the published code throws away.
PAPER = replace(RECIPES["paper"], freeze_epochs=0)
SMALL = replace(PAPER, resize=110, crop=96)
INPUTS = {"448px": PAPER, "96px": SMALL}
STEPS = {"cuda": PAPER, "cpu": replace(SMALL, batch_size=8)}
STEP_BATCHES = {"cuda": 32, "cpu": 4}  # of an epoch
SETTINGS: dict[str, list[tuple[str, ...]]] = {
    "cpu": [("plain", "32")],
    "cuda": [("plain", "32", "bf16"), ("bf16, compiled",)],
}
"""Of the step on a kind of device; the first group is in `make gpu-check`, and the second compiles for minutes."""
INPUT_ROUNDS = 7  # sides take turns
STEP_ROUNDS, STEP_EPOCHS = {"cpu": 3, "cuda": 1}, {"cpu": 1, "cuda": 2}  # epochs timed in a run, after one to warm up


def count_rows(device: str) -> int:
    """Of all results on a kind of device."""
    return 2 * len(INPUTS) + sum(len(group) for group in SETTINGS[device])


def count_inputs() -> int:
    """Images of the input's data set: 8 mini-batches, or 4 for each worker of the plain side."""
    return PAPER.batch_size * max(8, 4 * (os.cpu_count() or 1))


def measure_input(folder: Path, recipe: Recipe, device: str, rounds: int = INPUT_ROUNDS) -> list[Row]:
    """Images/s of both sides: of the first epoch, from opening the files on, and the median of later ones in turn.

    An image counts once in a mini-batch, though each of its phases is made.
    """
    clock, target = make_clock(device), torch.device(device)
    makers: dict[str, Callable[[], Input]] = {
        "plain": lambda: PlainInput(folder, recipe, target),
        "ours": lambda: OurInput(folder, recipe, target, folder / "cache"),
    }
    sides: dict[str, Input] = {}
    first: dict[str, float] = {}
    for name, make in makers.items():
        start = clock()
        sides[name] = make()
        first[name] = read_epoch(sides[name], 0) / (clock() - start)
    later: dict[str, list[float]] = {name: [] for name in sides}
    for epoch in range(1, rounds + 1):
        for name, side in sides.items():
            start = clock()
            later[name].append(read_epoch(side, epoch) / (clock() - start))
    return [
        make_row("input", name, recipe, later[name], first_epoch_images_per_s=round_figure(first[name]))
        for name in sides
    ]


def read_epoch(side: Input, epoch: int) -> int:
    """Make every input of an epoch; returns its images."""
    count = 0
    for inputs, labels in side.read(epoch):
        for _ in inputs:
            pass
        count += len(labels)
    return count


def measure_steps(
    folder: Path, recipe: Recipe, device: str, settings: Sequence[str], *, rounds: int, epochs: int
) -> list[Row]:
    """Images/s of whole training epochs in each setting; what a step holds; the share of time that inputs take."""
    found: dict[str, list[tuple[list[float], dict[str, float]]]] = {name: [] for name in settings}
    dataset = data.load_dataset("folder", folder, resize=recipe.resize)
    recipe = replace(recipe, epochs=epochs + 1)
    for _ in range(rounds):
        for name in settings:
            if name == "plain":
                found[name].append(_train_plain(folder, recipe, device, len(dataset.classes)))
            else:
                found[name].append(_train_ours(dataset, recipe, device, name, folder))
            gc.collect()  # its memory, before the next one's is measured
    rows = []
    for name, runs in found.items():
        rates = [rate for rates, _ in runs for rate in rates]
        facts = {key: round_figure(statistics.median(facts[key] for _, facts in runs)) for key in runs[0][1]}
        rows.append(make_row("step", name, recipe, rates, **facts))
    return rows


def make_row(task: str, side: str, recipe: Recipe, rates: Sequence[float], **found: Any) -> Row:
    """What was measured of a side: the median of ``rates`` in images/s, and all of them."""
    return {
        "task": task,
        "side": side,
        "size": recipe.crop,
        "batch": recipe.batch_size,
        "images_per_s": round_figure(statistics.median(rates)),
        "epochs": [round_figure(rate) for rate in rates],
        **found,
    }


class _Silent:
    """Watches a run and says nothing."""

    def on_batch(self, done: int, total: int, losses: Sequence[float]) -> None: ...

    def on_epoch(self, record: dict[str, Any]) -> None: ...


def _train_ours(
    dataset: Dataset, recipe: Recipe, device: str, setting: str, folder: Path
) -> tuple[list[float], dict[str, float]]:
    trainer = make_trainer(dataset, recipe, device, setting, folder)
    trainer.run(_Silent())
    speeds = [record["speed"] for record in trainer.history[1:]]
    trainer.objective.train()
    iteration = next(plan_epoch(recipe, len(dataset.train.labels), seed=0, epoch=0))
    return [speed["images_per_second"] for speed in speeds], {
        "input_share": statistics.median(speed["input_share"] for speed in speeds),
        "step_bytes": find_peak(lambda: trainer.step(iteration), device, fresh=False),
    }


def _train_plain(folder: Path, recipe: Recipe, device: str, classes: int) -> tuple[list[float], dict[str, float]]:
    clock, target = make_clock(device), torch.device(device)
    side = PlainInput(folder, recipe, target)
    steps = recipe.epochs * count_batches(recipe, len(side.dataset))
    trainer = PlainTrainer(make_network(recipe, classes).to(target), recipe, steps)
    rates = []
    for epoch in range(recipe.epochs):
        start = clock()
        rates.append(trainer.train(side.read(epoch)) / (clock() - start))
    images, labels = next(iter(side.loader))

    def step() -> Tensor:
        return torch.tensor(trainer.step(side.show(images.to(target)), labels.to(target)))

    return rates[1:], {"step_bytes": find_peak(step, device, fresh=False)}
