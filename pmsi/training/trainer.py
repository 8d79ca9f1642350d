"""Progressive trainer (Algorithm 1 of RMG-PMSI): S + 1 phases and optimiser steps for every mini-batch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from pmsi.data.dataset import Dataset
from pmsi.data.preprocess import describe_preprocessing
from pmsi.data.storage import make_store
from pmsi.evaluation.accuracy import Evaluation, evaluate
from pmsi.evaluation.calibration import fit_temperature
from pmsi.models.registry import make_network
from pmsi.recipe import Recipe
from pmsi.runtime.checkpoints import check_identity, load_newest, load_parts, save_checkpoint
from pmsi.runtime.environment import list_versions
from pmsi.runtime.files import expand_home, write_lines
from pmsi.runtime.profiler import Profile
from pmsi.runtime.seeding import make_generator
from pmsi.runtime.session import Session
from pmsi.runtime.signals import GracefulStop, Stopped
from pmsi.training.batches import BatchPlan, LocalBatch, check_sizes, count_batches, plan_epoch, take_local
from pmsi.training.batchnorm import share_statistics
from pmsi.training.callbacks import Callback, Silent
from pmsi.training.epoch import EpochState, read_progress
from pmsi.training.inputs import PhaseInput, PhaseInputs
from pmsi.training.memory import advise_batch, check_host, measure_peak
from pmsi.training.objective import make_objective
from pmsi.training.optim import NEW_LAYERS, MovingAverage, make_optimizer, make_schedule, start_momentum
from pmsi.training.phases import list_phases, needs_maps
from pmsi.training.snapmix import SnapMixHead, measure_maps
from pmsi.training.step import PhaseSteps, make_steps

SAVE_SECONDS = 5.0  # an untested epoch of less is kept with a later one: saving a small network takes 30 ms


class Trainer:
    """Training run: a function of recipe, data, initial weights and seed, however often it is interrupted.

    Several processes share each mini-batch and each test; their number changes the result by rounding alone, where
    batch-norm groups are equal (``recipe.batch_norm_images``), there is no dropout and the network's loss is a mean
    over images (API-Net and Pairwise Confusion compare the images of a process).

    Args:
        recipe: network, phases and settings of the training.
        dataset: images of ``recipe.resize`` px, and labels.
        weights: of the backbone, as `make_backbone` takes them.
        seed: of initial weights, order, crops, augmentation and dropout.
        identity: values that a checkpoint, and all processes, must agree on; None describes recipe, data, weights, seed
            and precision.
        folder: gets ``last.ckpt``, ``previous.ckpt`` (the one before) and ``metrics.jsonl`` after every epoch that is
            tested or ends `SAVE_SECONDS` or more after the last one kept, and when the run is stopped; a checkpoint
            there is continued, also in the middle of an epoch. None keeps nothing.
        session: device, precision, processes, and whether phases are compiled or replayed as CUDA graphs; None opens
            the best device of this machine.

    Attributes:
        network: the network that is trained.
        tested: the network that is tested: ``network``, or its moving average (``recipe.ema_decay``).
        history: records of the epochs done: losses, learning rates, accuracies and speed.

    Raises:
        ValueError: the folder's checkpoint belongs to another run, or all are damaged; processes differ, or cannot
            share a mini-batch equally; images do not fit the recipe.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        *,
        weights: str = "none",
        seed: int = 0,
        identity: dict[str, Any] | None = None,
        folder: Path | None = None,
        session: Session | None = None,
    ) -> None:
        # 1. Session: all processes run the same, and share each mini-batch equally.
        self.recipe, self.seed, self.session = recipe, seed, session or Session()
        self.fabric, self.processes = self.session.fabric, self.session.processes
        self.identity = _describe(recipe, dataset, weights, seed, self.fabric) if identity is None else identity
        self.processes.check_same({**self.identity, "root": None})  # hosts may hold the images in other places
        check_sizes(recipe, dataset, self.processes.count)
        self.rows = self.processes.split(recipe.batch_size)  # of this process
        # 2. Data and phases.
        self.train, self.test = (make_store(split, self.fabric.device) for split in (dataset.train, dataset.test))
        self.phases, self.batches = list_phases(recipe), count_batches(recipe, len(self.train.labels))
        self.inputs = PhaseInputs(recipe, self.fabric, self._snapmix_maps)
        # 3. Network, then the head of SnapMix: results depend on the order in which they draw their weights.
        torch.manual_seed(seed)
        self.network = make_network(recipe, len(dataset.classes), weights)
        self.snapmix = SnapMixHead(self.network.backbone.widths[-1], len(dataset.classes), recipe).to(
            self.fabric.device
        )
        share_statistics(self.network, recipe, self.processes.count, self.fabric.device.type)
        # 4. Optimizer and schedule; wrapped for precision and processes.
        optimizer = make_optimizer(recipe, self.network)
        objective = make_objective(self.network, phases=len(self.phases), compiled=self.session.compile)
        self.objective, self.optimizer = self.fabric.setup(objective, optimizer)
        if self.fabric.strategy.precision.precision == "16-mixed":
            start_momentum(optimizer)
        steps = PhaseSteps(self.phases, self.objective, self.optimizer, self.fabric, zero_idle=recipe.zero_idle_grads)
        self.steps = make_steps(steps, self.session)
        self.schedule = make_schedule(recipe, optimizer, len(self.train.labels))
        self.average = None if recipe.ema_decay is None else MovingAverage(self.network, recipe.ema_decay)
        self.tested = self.network if self.average is None else self.average.network
        # 5. State of the run: new, or that of the folder's checkpoint.
        self.about: dict[str, Any] = {"preprocessing": describe_preprocessing(recipe), "versions": list_versions()}
        self.history: list[dict[str, Any]] = []
        self.epoch = EpochState(len(self.phases), self.fabric.device)
        self.parts = self._list_parts(optimizer)
        self.checkpoint = None if folder is None else expand_home(folder) / "last.ckpt"
        self.saved = time.perf_counter()  # when the run was last saved, or begun
        self._restore()

    def run(self, callback: Callback | None = None, profile: Profile | None = None) -> Evaluation:
        """Train the epochs that are left, and return the test of the last one.

        Args:
            callback: is called after mini-batches and epochs.
            profile: records some mini-batches.

        Raises:
            Stopped: Ctrl-C or SIGTERM came, to any process; the mini-batch under way is done and saved.
            ValueError: a loss is not finite; the last good checkpoint stays. Or a mini-batch does not fit in memory.
        """
        evaluation, callback = None, callback or Silent()
        with GracefulStop() as interrupter:
            while len(self.history) < self.recipe.epochs:
                self._train_epoch(callback, interrupter, profile)
                seconds = self.epoch.elapsed()
                evaluation = self._evaluate(interrupter) if self.recipe.is_tested(len(self.history) + 1) else None
                if evaluation is not None and len(self.history) + 1 == self.recipe.epochs:
                    self.about["temperature"] = fit_temperature(evaluation.logits, self.test.labels)
                record = self._record(evaluation, seconds)
                self.history.append(record)
                self.epoch = EpochState(len(self.phases), self.fabric.device)
                worth = evaluation is not None or time.perf_counter() - self.saved >= SAVE_SECONDS
                if saved := bool(self.processes.max_over_processes(int(worth))):
                    self._save()
                callback.on_epoch(record)
                self._leave_if_asked(interrupter, saved=saved)
        return evaluation or evaluate(self.tested, self.test, self.recipe, self.session)

    def step(self, batch: BatchPlan) -> Tensor:
        """Train one mini-batch of the data set; losses ``[S + 1]`` of its phases."""
        share = take_local(batch, self.rows)
        images, index = next(self.train.fetch([share.index]))
        return self.step_phases(self.inputs.make(share, images, index))

    def step_phases(self, inputs: Iterable[PhaseInput]) -> Tensor:
        """Train one mini-batch: every phase has its own input, loss, backward pass and update. Losses ``[S + 1]``.

        Args:
            inputs: normalised images ``[B, 3, H, W]`` on the network's device and their targets, for each of
                ``phases``; of this process's share.
        """
        return self.steps(self.epoch.time_inputs(inputs))

    def _train_epoch(self, callback: Callback, interrupter: GracefulStop, profile: Profile | None) -> None:
        """Train the mini-batches that are left of the current epoch."""
        self.epoch.started = time.perf_counter()
        number = len(self.history)
        self.objective.train()
        self.network.backbone.requires_grad_(number >= self.recipe.freeze_epochs)
        plans = plan_epoch(self.recipe, self.train.labels, seed=self.seed, epoch=number, start=self.epoch.done)
        ahead, shares = itertools.tee(take_local(batch, self.rows) for batch in plans)  # a store may read ahead
        fetched = self.train.fetch(share.index for share in ahead)
        for share, (images, index) in self.epoch.time_inputs(zip(shares, fetched, strict=True)):
            dropout = make_generator(self.seed, number, 2, self.epoch.done, self.processes.rank)
            torch.manual_seed(dropout.initial_seed())
            losses = self._try_step(share, images, index)
            if losses is None:
                self.optimizer.zero_grad()
                outputs = [phase.output for phase in self.phases]
                raise ValueError(advise_batch(self.network, outputs, self.inputs.buffer[: share.count], self.fabric))
            self.schedule.step()
            if self.average is not None:
                self.average.update(self.network, step=self.schedule.last_epoch)
            self.epoch.add(losses)
            callback.on_batch(self.epoch.done, self.batches, self.epoch.latest_losses())
            if profile is not None:
                profile.step()
            self._leave_if_asked(interrupter)
        self._sync_losses()

    def _try_step(self, share: LocalBatch, images: Tensor, index: Tensor) -> Tensor | None:
        """Losses of a mini-batch; None if a device has no memory for it, once the failed step let go of its tensors."""
        try:
            return self.step_phases(self.inputs.make(share, images, index))
        except torch.OutOfMemoryError:
            return None
        except RuntimeError as error:
            check_host(error, share.count, self.recipe.crop)
            raise

    def _evaluate(self, interrupter: GracefulStop) -> Evaluation:
        """Test the epoch's weights. Testing changes no state, so a stop request may interrupt it."""
        for network in dict.fromkeys((self.network, self.tested)):
            self.processes.copy_first(network.buffers())  # running statistics of batch-norm
        leave = partial(self._leave_if_asked, interrupter)
        return evaluate(self.tested, self.test, self.recipe, self.session, pause=leave)

    def _record(self, evaluation: Evaluation | None, seconds: float) -> dict[str, Any]:
        """Line of ``metrics.jsonl`` for the current epoch, trained in ``seconds``; accuracies are None untested."""
        return {
            "epoch": len(self.history) + 1,
            "losses": (self.epoch.losses / self.batches).tolist(),
            "lr": self.schedule.get_last_lr(),
            "concat": None if evaluation is None else evaluation.concat,
            "mix": None if evaluation is None else evaluation.mix,
            "stages": None if evaluation is None else list(evaluation.stages),
            "seconds": self.epoch.elapsed(),
            "speed": {
                "images_per_second": self.batches * self.recipe.batch_size / seconds,
                "input_share": self.epoch.input.read() / seconds,
                "memory_gb": measure_peak(self.fabric.device),
                "images": self.train.where,
            },
        }

    def _leave_if_asked(self, interrupter: GracefulStop, *, saved: bool = False) -> None:
        """Save and raise Stopped, on all processes, if one of them was asked to stop."""
        if asked := self.processes.max_over_processes(interrupter.asked or 0):
            if not saved:
                self._sync_losses()
                self._save()
            raise Stopped(asked)

    def _sync_losses(self) -> None:
        """Average the epoch's losses over all processes; ValueError names the first that was not finite."""
        self.epoch.losses = self.processes.sum(self.epoch.losses) / self.processes.count
        self.epoch.first_bad = self.processes.gather(self.epoch.first_bad[None]).amin(0)
        bad, phase = self.epoch.first_bad.min(0)
        if bad <= self.batches:
            kept = "" if self.checkpoint is None else f". {self.checkpoint.name} is as it was before"
            raise ValueError(
                f"the loss of phase {int(phase) + 1} is not finite in mini-batch {int(bad)} of epoch "
                f"{len(self.history) + 1}; lower --lr-new or --lr-backbone{kept}"
            )

    def _snapmix_maps(self, images: Tensor, labels: Tensor) -> Tensor:
        """SnapMix's maps ``[B, h, w]`` from the raw images of this process and the labels of the whole batch."""
        lr = self.optimizer.param_groups[NEW_LAYERS]["lr"]
        return measure_maps(self.snapmix, self.network.backbone, images, labels, self.session, lr=lr)

    def _list_parts(self, optimizer: Optimizer) -> dict[str, Any]:
        """List what a checkpoint holds besides the run's history: parts with a state, by their names there."""
        parts: dict[str, Any] = {"model": self.network, "optimizer": optimizer, "schedule": self.schedule}
        if self.average is not None:
            parts["average"] = self.average.network
        if self.fabric.strategy.precision.state_dict():  # fp16
            parts["precision"] = self.fabric.strategy.precision
        if needs_maps(self.recipe):
            parts |= {"camera": self.snapmix, "camera_optimizer": self.snapmix.optimizer}
        return parts

    def _save(self) -> None:
        """Write checkpoint and metrics. All processes hold the same; the first one writes it."""
        if self.checkpoint is None:
            return
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        run = {"identity": self.identity, "about": self.about, "history": self.history, "epoch": self.epoch.to_dict()}
        if self.processes.rank == 0:
            save_checkpoint(self.checkpoint, run | parts)
            write_lines(self.checkpoint.with_name("metrics.jsonl"), self.history)
        self.fabric.barrier()
        self.saved = time.perf_counter()

    def _restore(self) -> None:
        """Continue the folder's checkpoint, if it has one."""
        state = None if self.checkpoint is None else load_newest(self.checkpoint)
        if self.checkpoint is None or state is None:
            return
        check_identity(state["identity"], self.identity, self.checkpoint, state.get("written_by"))
        load_parts(state, self.parts, self.checkpoint)
        self.about["temperature"] = state.get("about", {}).get("temperature")
        self.history, self.epoch = read_progress(state, len(self.phases), self.fabric.device, self.checkpoint)


def _describe(recipe: Recipe, dataset: Dataset, weights: str, seed: int, fabric: Fabric) -> dict[str, Any]:
    """Identity of a run whose caller gives none."""
    return {
        **dataset.identity,
        "weights": weights,
        "precision": fabric.strategy.precision.precision,
        "seed": seed,
        **{f"recipe.{name}": value for name, value in recipe.to_dict().items()},
    }
