"""The progressive trainer (Algorithm 1 of RMG-PMSI): S + 1 phases and optimiser steps for every mini-batch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from mosaicaug import Plan, Targets, class_activation_map, cross_entropy
from pmsi.backbones import make_mobilenet_v2
from pmsi.config import Recipe
from pmsi.data import Dataset, Split
from pmsi.evaluate import Evaluation, evaluate, show
from pmsi.files import load_newest, save_checkpoint, write_lines
from pmsi.loader import Iteration, count_batches, make_generator, plan_epoch
from pmsi.model import PMSI
from pmsi.phases import list_phases
from pmsi.progress import Epoch, Interrupter, Stopped


class Watch(Protocol):
    """Who is told how far a run is."""

    def batch(self, done: int, total: int) -> None:
        """``done`` of ``total`` mini-batches of the epoch are trained."""

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch is trained, tested and saved."""


class Trainer:
    """One run: a function of recipe, data, initial weights and seed, whatever interrupts it.

    Args:
        recipe: what to do.
        dataset: what to do it on; moved to the device as it is (uint8).
        weights: of the backbone, as `make_mobilenet_v2` takes them.
        seed: of initial weights, order, crops, augmentation and dropout.
        identity: what a checkpoint must agree on to be continued.
        folder: gets ``last.ckpt``, ``previous.ckpt`` (the one before) and ``metrics.jsonl`` after every epoch, and when
            the run is stopped; a checkpoint there is continued, in the middle of an epoch too.
        fabric: device and precision.

    Raises:
        ValueError: the folder's checkpoint belongs to another run, or all are damaged.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        *,
        weights: str,
        seed: int,
        identity: dict[str, Any],
        folder: Path,
        fabric: Fabric,
    ) -> None:
        self.recipe, self.seed, self.identity, self.fabric = recipe, seed, identity, fabric
        self.train_split, self.test_split = (_to_device(split, fabric) for split in (dataset.train, dataset.test))
        self.phases = list_phases(recipe)
        torch.manual_seed(seed)
        self.network = make_network(recipe, len(dataset.classes), weights)
        self.camera = Camera(self.network.backbone.widths[-1], len(dataset.classes), recipe).to(fabric.device)
        backbone, new = self.network.parameter_groups()
        groups = [{"params": backbone, "lr": recipe.lr_backbone}, {"params": new, "lr": recipe.lr_new}]
        # One kernel for all parameters, a seventh of the step at 64 px on two cores; it wants all gradients there.
        fused = recipe.zero_idle_grads
        optimizer = SGD(groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=fused)
        self.model, self.optimizer = fabric.setup(self.network, optimizer)
        self.parts: dict[str, Any] = {"model": self.network, "optimizer": optimizer}
        if recipe.augmentation == "snapmix":
            self.parts |= {"camera": self.camera, "camera_optimizer": self.camera.optimizer}
        self.schedule = self.parts["schedule"] = make_schedule(recipe, optimizer, len(dataset.train.labels))
        self.history: list[dict[str, Any]] = []
        self.batches = count_batches(recipe, len(dataset.train.labels))  # of an epoch
        self.epoch = Epoch.begin(len(self.phases), fabric.device)
        self.checkpoint = folder / "last.ckpt"
        self._restore()

    def run(self, watch: Watch) -> Evaluation:
        """Train the epochs that are left, and return the test of the last one.

        Raises:
            Stopped: Ctrl-C or SIGTERM came; the mini-batch under way is done and saved.
            ValueError: a loss is not finite; the last good checkpoint stays.
        """
        evaluation = None
        with Interrupter() as interrupter:
            while len(self.history) < self.recipe.epochs:
                self.epoch.started = time.perf_counter()
                self._train_epoch(watch, interrupter)
                evaluation = self._test(interrupter)
                record = {
                    "epoch": len(self.history) + 1,
                    "losses": (self.epoch.losses / self.batches).tolist(),
                    "lr": self.schedule.get_last_lr(),
                    "concat": evaluation.concat,
                    "mix": evaluation.mix,
                    "stages": list(evaluation.stages),
                    "seconds": self.epoch.find_seconds(),
                }
                self.history.append(record)
                self.epoch = Epoch.begin(len(self.phases), self.fabric.device)
                self._save()
                watch.epoch(record)
                if interrupter.asked is not None:
                    raise Stopped(interrupter.asked)
        return evaluation or evaluate(self.model, self.test_split, self.recipe)

    def step(self, iteration: Iteration) -> Tensor:
        """`step_phases` for one mini-batch of the data set in memory."""
        return self.step_phases(self._show_phases(iteration))

    def step_phases(self, inputs: Iterable[tuple[Tensor, Tensor | Targets]]) -> Tensor:
        """One mini-batch: every phase has its own input, loss, backward pass and update. Losses, ``[S + 1]``.

        Args:
            inputs: normalised images ``[B, 3, H, W]`` on the model's device and their targets, for each of ``phases``.
        """
        losses = []
        for phase, (images, targets) in zip(self.phases, inputs, strict=True):
            logits = self.model(images)
            output = logits.concat if phase.output is None else logits.stages[phase.output]
            loss = phase.weight * cross_entropy(output, targets)
            self._clear_gradients()
            self.fabric.backward(loss)
            self.optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    def _show_phases(self, iteration: Iteration) -> Iterator[tuple[Tensor, Tensor | Targets]]:
        """What each phase sees, made when its turn comes."""
        labels = self.train_split.labels[iteration.index]
        maps = self._look(iteration, labels) if self.recipe.augmentation == "snapmix" else None
        images, shown = None, None
        for draw in iteration.draws:
            if images is None or draw is not shown:  # phases may share one input
                images, shown = show(self.train_split.images, draw.plan, iteration.index, iteration.window), draw
            yield images, draw.targets(labels, maps)

    def _clear_gradients(self) -> None:
        """To zero, also those that no backward pass has made yet: idle layers are then alike in a resumed run."""
        self.optimizer.zero_grad(set_to_none=not self.recipe.zero_idle_grads)
        if self.recipe.zero_idle_grads:
            for parameter in self.network.parameters():
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def _train_epoch(self, watch: Watch, interrupter: Interrupter) -> None:
        """Train the mini-batches that are left of the epoch under way."""
        number, count = len(self.history), len(self.train_split.labels)
        self.model.train()
        self.network.backbone.requires_grad_(number >= self.recipe.freeze_epochs)
        plan = plan_epoch(self.recipe, count, seed=self.seed, epoch=number, start=self.epoch.done)
        for iteration in plan:
            torch.manual_seed(make_generator(self.seed, number, 2, self.epoch.done).initial_seed())  # dropout
            losses = self.step(iteration)
            self.schedule.step()
            self.epoch.add(losses)
            watch.batch(self.epoch.done, self.batches)
            if interrupter.asked is not None:
                self._check_losses()
                self._save()
                raise Stopped(interrupter.asked)
        self._check_losses()

    def _test(self, interrupter: Interrupter) -> Evaluation:
        """Test the epoch's weights. This changes nothing, so it need not be waited for."""
        try:
            interrupter.patient = False
            return evaluate(self.model, self.test_split, self.recipe)
        except Stopped:
            self._save()
            raise
        finally:
            interrupter.patient = True

    def _check_losses(self) -> None:
        """ValueError that names the first loss that was not finite."""
        bad, phase = self.epoch.first_bad.min(0)
        if bad <= self.batches:
            raise ValueError(
                f"the loss of phase {int(phase) + 1} is not finite in mini-batch {int(bad)} of epoch "
                f"{len(self.history) + 1}; lower --lr-new or --lr-backbone. {self.checkpoint.name} is as it was before"
            )

    def _look(self, iteration: Iteration, labels: Tensor) -> Tensor:
        """SnapMix's maps of the raw batch, from one more pass of the backbone in training mode, as published."""
        raw = Plan.identity(len(labels), (self.recipe.crop, self.recipe.crop))
        with torch.no_grad():
            features = self.network.backbone(show(self.train_split.images, raw, iteration.index, iteration.window))[-1]
        return self.camera.look(features, labels, lr=self.optimizer.param_groups[1]["lr"])

    def _save(self) -> None:
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        state = {"identity": self.identity, "history": self.history, "epoch": self.epoch.to_dict(), **parts}
        save_checkpoint(self.checkpoint, state)
        write_lines(self.checkpoint.with_name("metrics.jsonl"), self.history)

    def _restore(self) -> None:
        state = load_newest(self.checkpoint)
        if state is None:
            return
        check_identity(state["identity"], self.identity, self.checkpoint)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.history = state["history"]
        self.epoch = Epoch.begin(len(self.phases), self.fabric.device, **state["epoch"])


class Camera(nn.Module):
    """SnapMix's source of maps: a linear head on pooled, detached features, trained beside the network.

    The network's own classifiers are not linear on pooled maps, so no class activation map can be read from them.
    """

    def __init__(self, channels: int, num_classes: int, recipe: Recipe) -> None:
        super().__init__()
        self.head = nn.Linear(channels, num_classes)
        self.optimizer = SGD(self.parameters(), lr=0.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay)

    def look(self, features: Tensor, labels: Tensor, *, lr: float) -> Tensor:
        """Maps ``[B, h, w]`` of ``features`` ``[B, C, h, w]``, and one training step of the head."""
        maps = class_activation_map(features, self.head.weight, self.head.bias, labels)
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        loss = cross_entropy(self.head(features.mean((2, 3))), labels)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return maps


def make_network(recipe: Recipe, num_classes: int, weights: str = "none") -> PMSI:
    """The recipe's network, in channels_last (a quarter faster on CPUs)."""
    network = PMSI(
        make_mobilenet_v2(weights, stem_stride=recipe.stem_stride),
        num_classes,
        stages=recipe.stages,
        interaction=recipe.interaction,
        feature_width=recipe.feature_width,
        hidden_width=recipe.hidden_width,
        dropout=recipe.dropout,
    )
    for part in (network.backbone, network.classifiers, network.concat_classifier):
        for module in part.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = recipe.batch_norm_momentum
    return network.to(memory_format=torch.channels_last)


def make_schedule(recipe: Recipe, optimizer: SGD, count: int) -> LRScheduler:
    """The recipe's learning rates for ``count`` training images, to be stepped once per mini-batch."""
    steps = recipe.epochs * count_batches(recipe, count)
    if recipe.schedule == "onecycle":
        peaks = [recipe.lr_backbone, recipe.lr_new]
        warmup = max(recipe.warmup, 2 / (steps + 1))  # of one step, torch divides by zero
        return OneCycleLR(optimizer, peaks, total_steps=steps + 1, pct_start=warmup, cycle_momentum=False)
    period = recipe.epochs * count if recipe.schedule == "released" else steps
    return CosineAnnealingLR(optimizer, period)


def check_identity(found: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    """ValueError that names what differs between a stored run and the one that was asked for."""
    differs = [
        f"{name} is {_brief(found.get(name))} there, {_brief(wanted.get(name))} was asked for"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    if differs:
        raise ValueError(f"{path} belongs to another run: {'; '.join(differs)}. Choose another --run folder")


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _to_device(split: Split, fabric: Fabric) -> Split:
    return Split(fabric.to_device(split.images), fabric.to_device(split.labels))
