"""Images per second of the training input and of whole training steps, ours and plain."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.measure import make_clock, measure_peak
from bench.results import Row, round_figure
from bench.training.ours import Input, OurInput, make_trainer
from bench.training.plain import PlainInput, PlainTrainer
from pmsi.data.dataset import Dataset, load_dataset
from pmsi.models.registry import make_network
from pmsi.recipe import RECIPES, Recipe
from pmsi.runtime.cores import count_cores
from pmsi.training.batches import count_batches, plan_epoch

# The backbone learns from the first epoch on: ours would skip gradients that the published code throws away.
PAPER, QUICK = replace(RECIPES["paper"], freeze_epochs=0), RECIPES["quick"]
SMALL = replace(PAPER, resize=110, crop=96)
INPUTS = {"448px": PAPER, "96px": SMALL}
STEPS = {"cuda": PAPER, "cpu": replace(SMALL, feature_width=QUICK.feature_width, hidden_width=QUICK.hidden_width)}
STEP_BATCHES = {"cuda": 32, "cpu": 4}  # of an epoch
SETTINGS: dict[str, list[tuple[str, ...]]] = {
    "cpu": [("plain", "32")],
    "cuda": [("plain", "32", "bf16"), ("bf16, compiled",)],
}
"""Of the step on a kind of device; the first group is in `make gpu-check`, and the second compiles for minutes."""
INPUT_ROUNDS = 7  # sides take turns
STEP_ROUNDS, STEP_EPOCHS = {"cpu": 3, "cuda": 1}, {"cpu": 1, "cuda": 2}  # epochs timed in a run, after one to warm up


def count_rows(device: str) -> int:
    """Number of rows of a complete run on a device type."""
    return 2 * len(INPUTS) + sum(len(group) for group in SETTINGS[device])


def count_photos() -> int:
    """Number of photographs to time inputs on: 8 mini-batches, or 4 per worker of the plain side."""
    return PAPER.batch_size * max(8, 4 * count_cores())


def measure_input(folder: Path, recipe: Recipe, device: str, rounds: int = INPUT_ROUNDS) -> list[Row]:
    """Measure the inputs of both sides in images/s: the first epoch with opening the files, and later epochs.

    An image counts once per mini-batch, though it is made once per phase. Later epochs of the sides alternate.
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
        first[name] = run_epoch(sides[name], 0) / (clock() - start)
    later: dict[str, list[float]] = {name: [] for name in sides}
    for epoch in range(1, rounds + 1):
        for name, side in sides.items():
            start = clock()
            later[name].append(run_epoch(side, epoch) / (clock() - start))
    return [
        make_row("input", name, recipe, later[name], first_epoch_images_per_s=round_figure(first[name]))
        for name in sides
    ]


def run_epoch(side: Input, epoch: int) -> int:
    """Make all inputs of an epoch; returns its number of images."""
    count = 0
    for inputs, labels in side.batches(epoch):
        for _ in inputs:
            pass
        count += len(labels)
    return count


def measure_steps(
    folder: Path, recipe: Recipe, device: str, settings: Sequence[str], *, rounds: int, epochs: int
) -> list[Row]:
    """Measure whole training epochs in each setting: images/s, peak memory of a step, share of input time."""
    found: dict[str, list[tuple[list[float], dict[str, float]]]] = {name: [] for name in settings}
    dataset = load_dataset("folder", folder, resize=recipe.resize)
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
    """Row of a side: the median of ``rates`` in images/s, and all of them."""
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
    """Callback that does nothing."""

    def on_batch(self, done: int, total: int, losses: Sequence[float]) -> None: ...

    def on_epoch(self, record: dict[str, Any]) -> None: ...


def _train_ours(
    dataset: Dataset, recipe: Recipe, device: str, setting: str, folder: Path
) -> tuple[list[float], dict[str, float]]:
    trainer = make_trainer(dataset, recipe, device, setting, folder)
    trainer.run(_Silent())
    speeds = [record["speed"] for record in trainer.history[1:]]
    trainer.objective.train()
    iteration = next(plan_epoch(recipe, dataset.train.labels, seed=0, epoch=0))
    return [speed["images_per_second"] for speed in speeds], {
        "input_share": statistics.median(speed["input_share"] for speed in speeds),
        "step_bytes": measure_peak(lambda: trainer.step(iteration), device, fresh=False),
    }


def _train_plain(folder: Path, recipe: Recipe, device: str, classes: int) -> tuple[list[float], dict[str, float]]:
    clock, target = make_clock(device), torch.device(device)
    side = PlainInput(folder, recipe, target)
    steps = recipe.epochs * count_batches(recipe, len(side.dataset))
    trainer = PlainTrainer(make_network(recipe, classes).to(target), recipe, steps)
    rates = []
    for epoch in range(recipe.epochs):
        start = clock()
        rates.append(trainer.train(side.batches(epoch)) / (clock() - start))
    images, labels = next(iter(side.loader))

    def step() -> Tensor:
        return torch.tensor(trainer.step(side.phase_inputs(images.to(target)), labels.to(target)))

    return rates[1:], {"step_bytes": measure_peak(step, device, fresh=False)}
