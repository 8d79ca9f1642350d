"""The progressive trainer (Algorithm 1 of RMG-PMSI): S + 1 phases and optimiser steps for every mini-batch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.profiler import record_function

from mosaicaug import Targets
from pmsi.data.dataset import Dataset
from pmsi.data.storage import make_store
from pmsi.evaluation.accuracy import Evaluation, evaluate
from pmsi.models.base import Network
from pmsi.models.registry import make_network
from pmsi.recipe import Recipe
from pmsi.runtime.checkpoints import check_identity, load_newest, save_checkpoint
from pmsi.runtime.files import write_lines
from pmsi.runtime.profiler import Profile
from pmsi.runtime.seeding import make_generator
from pmsi.runtime.session import Session
from pmsi.runtime.signals import GracefulStop, Stopped
from pmsi.training.batches import BatchPlan, count_batches, plan_epoch, take_local
from pmsi.training.batchnorm import share_statistics
from pmsi.training.callbacks import Callback
from pmsi.training.epoch import EpochState
from pmsi.training.inputs import Inputs, PhaseInput
from pmsi.training.memory import advise_batch, is_out_of_memory, measure_peak
from pmsi.training.optim import MovingAverage, make_schedule
from pmsi.training.phases import list_phases
from pmsi.training.snapmix import SnapMixHead


class Objective(nn.Module):
    """Images to the loss of one phase: what is compiled, and what processes average the gradients of."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, targets: Tensor | Targets, output: int | None) -> Tensor:
        return self.network.loss(images, targets, output)


T = TypeVar("T")


class Trainer:
    """One run: a function of recipe, data, initial weights and seed, whatever interrupts it.

    Several processes share each mini-batch and each test; which of them does what changes the result by rounding alone,
    where batch-norm groups are the same (``recipe.batch_norm_images``), there is no dropout and the network's loss is
    a mean over images (API-Net and Pairwise Confusion compare the images of a process).

    Args:
        recipe: what to do.
        dataset: what to do it on.
        weights: of the backbone, as `make_backbone` takes them.
        seed: of initial weights, order, crops, augmentation and dropout.
        identity: what a checkpoint, and all processes, must agree on.
        folder: gets ``last.ckpt``, ``previous.ckpt`` (the one before) and ``metrics.jsonl`` after every epoch, and when
            the run is stopped; a checkpoint there is continued, in the middle of an epoch too.
        session: device, precision, processes, and whether network and loss of every phase are compiled.

    Raises:
        ValueError: the folder's checkpoint belongs to another run, or all are damaged; processes differ, or cannot
            share a mini-batch equally.
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
        session: Session,
    ) -> None:
        self.recipe, self.seed, self.identity = recipe, seed, identity
        self.session, self.fabric, self.processes = session, session.fabric, session.processes
        fabric = session.fabric
        self.processes.check_same(identity)
        count = self.processes.count
        if recipe.batch_size % count:
            raise ValueError(f"{count} processes cannot share batches of {recipe.batch_size} equally; change one")
        self.rows = self.processes.split(recipe.batch_size)  # of this process
        self.train, self.test = (make_store(split, fabric.device) for split in (dataset.train, dataset.test))
        self.phases = list_phases(recipe)
        self.inputs = Inputs(recipe, dataset.train.labels, fabric, self._look)
        torch.manual_seed(seed)
        self.network = make_network(recipe, len(dataset.classes), weights)
        share_statistics(
            self.network,
            recipe.batch_norm_images,
            batch=recipe.batch_size,
            processes=count,
            device=fabric.device.type,
        )
        self.snapmix = SnapMixHead(self.network.backbone.widths[-1], len(dataset.classes), recipe).to(fabric.device)
        backbone, new = self.network.parameter_groups()
        groups = [{"params": backbone, "lr": recipe.lr_backbone}, {"params": new, "lr": recipe.lr_new}]
        # One kernel for all parameters, a seventh of the step at 64 px on two cores; it wants all gradients there.
        fused = recipe.zero_idle_grads
        optimizer = SGD(groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=fused)
        objective: Any = Objective(self.network)
        if session.compile:
            # A graph for each phase, with the backbone frozen and not.
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 4 * len(self.phases))
            objective = torch.compile(objective, dynamic=False)
        self.objective, self.optimizer = fabric.setup(objective, optimizer)
        self.parts: dict[str, Any] = {"model": self.network, "optimizer": optimizer}
        self.average = None if recipe.ema_decay is None else MovingAverage(self.network, recipe.ema_decay)
        self.tested = self.network if self.average is None else self.average.network
        if self.average is not None:
            self.parts["average"] = self.tested
        if fabric.strategy.precision.state_dict():  # the scale of fp16's losses
            self.parts["precision"] = fabric.strategy.precision
        if recipe.augmentation == "snapmix":
            self.parts |= {"camera": self.snapmix, "camera_optimizer": self.snapmix.optimizer}
        self.schedule = self.parts["schedule"] = make_schedule(recipe, optimizer, len(self.train.labels))
        self.history: list[dict[str, Any]] = []
        self.batches = count_batches(recipe, len(self.train.labels))  # of an epoch
        self.epoch = EpochState(len(self.phases), fabric.device)
        self.checkpoint = folder / "last.ckpt"
        self._restore()

    def run(self, watch: Callback, profile: Profile | None = None) -> Evaluation:
        """Train the epochs that are left, and return the test of the last one.

        Args:
            profile: told of each mini-batch.

        Raises:
            Stopped: Ctrl-C or SIGTERM came, to any process; the mini-batch under way is done and saved.
            ValueError: a loss is not finite; the last good checkpoint stays. Or a mini-batch does not fit in memory.
        """
        evaluation = None
        with GracefulStop() as interrupter:
            while len(self.history) < self.recipe.epochs:
                self._train_epoch(watch, interrupter, profile)
                seconds = self.epoch.elapsed()
                evaluation = self._evaluate(interrupter)
                record = {
                    "epoch": len(self.history) + 1,
                    "losses": (self.epoch.losses / self.batches).tolist(),
                    "lr": self.schedule.get_last_lr(),
                    "concat": evaluation.concat,
                    "mix": evaluation.mix,
                    "stages": list(evaluation.stages),
                    "seconds": self.epoch.elapsed(),
                    "speed": {
                        "images_per_second": self.batches * self.recipe.batch_size / seconds,
                        "input_share": self.epoch.input.read() / seconds,
                        "memory_gb": measure_peak(self.fabric.device),
                        "images": self.train.where,
                    },
                }
                self.history.append(record)
                self.epoch = EpochState(len(self.phases), self.fabric.device)
                self._save()
                watch.on_epoch(record)
                self._leave_if_asked(interrupter, saved=True)
        return evaluation or evaluate(self.tested, self.test, self.recipe, self.session)

    def step(self, iteration: BatchPlan) -> Tensor:
        """`step_phases` for one mini-batch of the data set."""
        share = take_local(iteration, self.rows)
        images, index = next(self.train.fetch([iteration.index[share.entries]]))
        return self.step_phases(self.inputs.make(iteration, share, images, index))

    def step_phases(self, inputs: Iterable[PhaseInput]) -> Tensor:
        """One mini-batch: every phase has its own input, loss, backward pass and update. Losses, ``[S + 1]``.

        Args:
            inputs: normalised images ``[B, 3, H, W]`` on the model's device and their targets, for each of ``phases``;
                of this process's share.
        """
        losses = []
        for phase, (images, targets) in zip(self.phases, self._time(inputs), strict=True):
            with record_function("pmsi: forward"):
                loss = phase.weight * self.objective(images, targets, phase.output)
            with record_function("pmsi: backward"):
                self._clear_gradients()
                self.fabric.backward(loss)
            with record_function("pmsi: update"):
                self.optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    def _time(self, inputs: Iterable[T]) -> Iterator[T]:
        """The same, and how long they took to come."""
        left = iter(inputs)
        while True:
            with record_function("pmsi: input"), self.epoch.input:
                found = next(left, None)
            if found is None:
                return
            yield found

    def _clear_gradients(self) -> None:
        """To zero, also those that no backward pass has made yet: idle layers are then alike in a resumed run."""
        self.optimizer.zero_grad(set_to_none=not self.recipe.zero_idle_grads)
        if self.recipe.zero_idle_grads:
            for parameter in self.network.parameters():
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def _train_epoch(self, watch: Callback, interrupter: GracefulStop, profile: Profile | None) -> None:
        """Train the mini-batches that are left of the epoch under way."""
        self.epoch.started = time.perf_counter()
        number, count = len(self.history), len(self.train.labels)
        self.objective.train()
        self.network.backbone.requires_grad_(number >= self.recipe.freeze_epochs)
        where: dict[str, Any] = {"epoch": number, "start": self.epoch.done, "labels": self.train.labels}
        plans = plan_epoch(self.recipe, count, seed=self.seed, **where)
        shares = ((iteration, take_local(iteration, self.rows)) for iteration in plans)
        ahead, behind = itertools.tee(shares)  # a store may read ahead
        fetched = self.train.fetch(iteration.index[share.entries] for iteration, share in ahead)
        for (iteration, share), (images, index) in self._time(zip(behind, fetched, strict=True)):
            seed = make_generator(self.seed, number, 2, self.epoch.done, self.processes.rank).initial_seed()
            torch.manual_seed(seed)  # dropout
            fits = False
            try:
                losses = self.step_phases(self.inputs.make(iteration, share, images, index))
                fits = True
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            if not fits:
                self.optimizer.zero_grad()
                own = self.recipe.batch_size // self.processes.count
                outputs = [phase.output for phase in self.phases]
                raise ValueError(advise_batch(self.network, outputs, self.inputs.buffer[:own], self.fabric))
            self.schedule.step()
            if self.average is not None:
                self.average.update(self.network, step=self.schedule.last_epoch)
            self.epoch.add(losses)
            watch.on_batch(self.epoch.done, self.batches, self.epoch.latest_losses())
            if profile is not None:
                profile.step()
            self._leave_if_asked(interrupter)
        self._meet()

    def _evaluate(self, interrupter: GracefulStop) -> Evaluation:
        """Test the epoch's weights. This changes nothing, so nobody need wait for it who asks to stop."""
        for network in dict.fromkeys((self.network, self.tested)):
            self.processes.copy_first(network.buffers())  # running statistics of batch-norm
        leave = partial(self._leave_if_asked, interrupter)
        return evaluate(self.tested, self.test, self.recipe, self.session, pause=leave)

    def _leave_if_asked(self, interrupter: GracefulStop, *, saved: bool = False) -> None:
        """Save and raise Stopped, on all processes, if one was asked to."""
        asked = self.processes.max_over_processes(interrupter.asked or 0)
        if asked:
            if not saved:
                self._meet()
                self._save()
            raise Stopped(asked)

    def _meet(self) -> None:
        """Make the epoch's losses those of all processes; ValueError names the first that was not finite."""
        self.epoch.losses = self.processes.sum(self.epoch.losses) / self.processes.count
        self.epoch.first_bad = self.processes.gather(self.epoch.first_bad[None]).amin(0)
        bad, phase = self.epoch.first_bad.min(0)
        if bad <= self.batches:
            raise ValueError(
                f"the loss of phase {int(phase) + 1} is not finite in mini-batch {int(bad)} of epoch "
                f"{len(self.history) + 1}; lower --lr-new or --lr-backbone. {self.checkpoint.name} is as it was before"
            )

    def _look(self, images: Tensor, labels: Tensor) -> Tensor:
        """SnapMix's maps ``[B, h, w]``, from one more pass of the backbone in training mode, as published.

        Args:
            images: this process's, raw.
            labels: of the whole batch.
        """
        with torch.no_grad(), self.fabric.autocast():
            features = self.network.backbone(images)[-1].float()
        maps = self.processes.gather(self.snapmix.maps(features, labels[self.rows]))
        self.snapmix.train_step(
            self.processes.gather(features.mean((2, 3))), labels, self.optimizer.param_groups[1]["lr"]
        )
        return maps

    def _save(self) -> None:
        """All processes hold the same; the first one writes it."""
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        state = {"identity": self.identity, "history": self.history, "epoch": self.epoch.to_dict(), **parts}
        if self.processes.rank == 0:
            save_checkpoint(self.checkpoint, state)
            write_lines(self.checkpoint.with_name("metrics.jsonl"), self.history)
        self.fabric.barrier()

    def _restore(self) -> None:
        state = load_newest(self.checkpoint)
        if state is None:
            return
        check_identity(state["identity"], self.identity, self.checkpoint)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.history = state["history"]
        self.epoch = EpochState(len(self.phases), self.fabric.device, **state["epoch"])
