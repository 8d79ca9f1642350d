"""Training step of a mini-batch: every phase's forward pass, backward pass and update; on a GPU as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.profiler import record_function
from torch.utils._pytree import tree_leaves, tree_map

from pmsi.runtime.session import Session
from pmsi.training.inputs import PhaseInput
from pmsi.training.optim import fill_gradients
from pmsi.training.phases import Phase

EAGER_STEPS = 2  # before a capture: the optimizer's state must be there, and kernels chosen

Replay = Callable[[], None]


class PhaseSteps:
    """Optimiser steps of a mini-batch, one for each phase.

    Args:
        phases: their outputs and weights.
        objective: loss of a phase, from images, targets and output; on its device, wrapped by ``fabric``.
        optimizer: of all parameters, wrapped by ``fabric``.
        fabric: precision and processes.
        zero_idle: see `fill_gradients`.
    """

    def __init__(
        self, phases: Sequence[Phase], objective: Any, optimizer: Any, fabric: Fabric, *, zero_idle: bool
    ) -> None:
        self.phases, self.objective, self.optimizer, self.fabric = phases, objective, optimizer, fabric
        self.zero_idle = zero_idle

    def __call__(self, inputs: Iterable[PhaseInput]) -> Tensor:
        """Train one mini-batch; losses ``[S + 1]``, weighted."""
        losses = []
        for phase, (images, targets) in zip(self.phases, inputs, strict=True):
            with record_function("pmsi: forward"):
                loss = phase.weight * self.objective(images, targets, phase.output)
            with record_function("pmsi: backward"):
                self.optimizer.zero_grad()  # gradients are made anew: adding to zeros takes longer
                self.fabric.backward(loss)
                if self.zero_idle:
                    fill_gradients(self.optimizer)
            with record_function("pmsi: update"):
                self.optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)


class GraphedSteps:
    """Steps of a mini-batch that are captured as one CUDA graph, and from then on replayed.

    A phase is thousands of kernels of microseconds, which the host launches more slowly than the GPU runs them. Inputs,
    learning rates and dropout are fresh in every replay. The first mini-batches run eagerly, and so do those after a
    change of the parameters that learn (a backbone that thaws).

    Args:
        steps: train one mini-batch; they must not wait for the GPU, nor let the host decide by values.
        capture: records a call, and returns what replays it; a CUDA graph by default.
    """

    def __init__(self, steps: PhaseSteps, capture: Callable[[Replay], Replay] | None = None) -> None:
        self.steps, self.capture = steps, capture or capture_graph
        self.learning: list[bool] = []
        self.eager, self.replay = 0, cast(Replay | None, None)
        self.inputs: list[PhaseInput] = []  # memory that replays read
        self.rates: list[Tensor] = []
        self.losses = torch.empty(0)  # memory that replays write

    def __call__(self, inputs: Iterable[PhaseInput]) -> Tensor:
        """Train one mini-batch; losses ``[S + 1]``, weighted.

        Raises:
            ValueError: shape or kind of an input differs from that of the capture.
        """
        learning = [parameter.requires_grad for group in self.groups for parameter in group["params"]]
        if learning != self.learning:
            self.learning, self.eager, self.replay = learning, 0, None
        if self.eager < EAGER_STEPS:
            self.eager += 1
            return self.steps(inputs)
        if self.replay is None:
            self.inputs = [tree_map(torch.clone, one) for one in inputs]
            self.rates = [torch.empty((), device=self.inputs[0][0].device) for _ in self.groups]
            self.replay = self.capture(self._run)
        else:
            for held, given in zip(self.inputs, inputs, strict=True):
                _fill_input(held, given)
        for rate, group in zip(self.rates, self.groups, strict=True):
            rate.fill_(group["lr"])
        self.replay()
        return self.losses.clone()

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Groups of the optimizer, which are others once it has loaded a checkpoint."""
        groups: list[dict[str, Any]] = self.steps.optimizer.param_groups
        return groups

    def _run(self) -> None:
        with self._rates_on_device():
            self.losses = self.steps(self.inputs)

    @contextmanager
    def _rates_on_device(self) -> Iterator[None]:
        """The optimizer reads learning rates from memory; schedule and checkpoints keep plain numbers."""
        kept = [dict(group) for group in self.groups]
        try:
            for group, rate in zip(self.groups, self.rates, strict=True):
                group["lr"] = rate
                if "capturable" in group:
                    group["capturable"] = True
            yield
        finally:
            for group, before in zip(self.groups, kept, strict=True):
                group.update(before)


def make_steps(steps: PhaseSteps, session: Session) -> PhaseSteps | GraphedSteps:
    """Steps as CUDA graphs where the session wants and has them; else as they are.

    Not among several processes; nor with fp16, which asks in every step whether the scaled gradients are finite; nor
    compiled, where each phase is a graph already; nor with an optimizer that is not fused, which reads its learning
    rates on the host.
    """
    fits = (
        session.graphs
        and session.fabric.device.type == "cuda"
        and session.processes.count == 1
        and not session.compile
        and session.fabric.strategy.precision.precision != "16-mixed"
        and all(group["fused"] for group in steps.optimizer.param_groups)
    )
    return GraphedSteps(steps) if fits else steps


def capture_graph(call: Replay) -> Replay:
    """Capture a call as a CUDA graph, without running it; returns what replays it."""
    torch.cuda.empty_cache()  # the graph has memory of its own, and the eager steps need theirs no more
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may pin memory
        call()
    return graph.replay


def _fill_input(held: PhaseInput, given: PhaseInput) -> None:
    """Copy an input to the memory of a captured one."""
    parts, new = tree_leaves(held), tree_leaves(given)
    was, now = ([(tuple(part.shape), part.dtype) for part in one] for one in (parts, new))
    if was != now:
        raise ValueError(
            f"training step: captured for inputs of (shape, type) {was}, got {now}; other inputs need a session with "
            "graphs=False"
        )
    for part, values in zip(parts, new, strict=True):
        part.copy_(values, non_blocking=True)
