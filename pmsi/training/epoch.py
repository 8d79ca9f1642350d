"""State of the current epoch (losses, counts, times), and a clock that does not wait for the GPU."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor
from torch.profiler import record_function

T = TypeVar("T")


class Clock:
    """Accumulates the time spent in ``with clock:`` blocks. On a GPU it records events and synchronises only in `read`.

    Args:
        device: whose time is measured.
        seconds: start value.
    """

    def __init__(self, device: torch.device, seconds: float = 0.0) -> None:
        self.is_cuda, self.seconds = device.type == "cuda", seconds
        self.marks: list[Any] = []

    def __enter__(self) -> Self:
        self.marks.append(self._mark())
        return self

    def __exit__(self, *_: object) -> None:
        self.marks.append(self._mark())
        if not self.is_cuda:
            self.read()

    def read(self) -> float:
        """Seconds accumulated so far."""
        for start, end in zip(self.marks[::2], self.marks[1::2], strict=True):
            self.seconds += start.elapsed_time(end) / 1000 if self.is_cuda else end - start
        self.marks.clear()
        return self.seconds

    def _mark(self) -> Any:
        if not self.is_cuda:
            return time.perf_counter()
        return _record_event(enable_timing=True)


class EpochState:
    """State of the current epoch: mini-batches done, losses and times.

    Args:
        phases: S + 1.
        device: of the losses.
        done: mini-batches trained so far.
        losses: ``[S + 1]``, sums over them.
        seconds: training time of the epoch in processes before this one.
        input_seconds: part of it that was spent on inputs.
    """

    def __init__(
        self,
        phases: int,
        device: torch.device,
        *,
        done: int = 0,
        losses: Sequence[float] = (),
        seconds: float = 0.0,
        input_seconds: float = 0.0,
    ) -> None:
        self.done = done
        self.losses = torch.tensor(losses or [0.0] * phases, device=device)
        # int64 [S + 1], the first mini-batch, from 1, whose loss was not finite; or far away
        self.first_bad = torch.full((phases,), 2**62, device=device)
        self.input, self.seconds, self.started = Clock(device, input_seconds), seconds, time.perf_counter()
        self.copied: Any = None  # when `shown` is to be read
        self.shown = torch.zeros(phases, pin_memory=device.type == "cuda")

    def time_inputs(self, inputs: Iterable[T]) -> Iterator[T]:
        """Yield the same, and count the time they take to come as input time."""
        left = iter(inputs)
        while True:
            with record_function("pmsi: input"), self.input:
                found = next(left, None)
            if found is None:
                return
            yield found

    def add(self, losses: Tensor) -> None:
        """Count one more mini-batch with its losses ``[S + 1]``. Does not wait for the device."""
        self.done += 1
        self.losses += losses
        bad = torch.where(losses.isfinite(), self.first_bad, self.done)
        self.first_bad = torch.minimum(self.first_bad, bad)

    def latest_losses(self) -> list[float]:
        """Mean losses ``[S + 1]`` of the epoch, as copied from the device so far; empty before the first copy."""
        if not self.losses.is_cuda:
            return (self.losses / self.done).tolist()
        shown: list[float] = []
        if self.copied is None or self.copied.query():
            shown = self.shown.tolist() if self.copied is not None else []
            self.shown.copy_(self.losses / self.done, non_blocking=True)
            self.copied = _record_event()
        return shown

    def elapsed(self) -> float:
        """Seconds of training, in this process and before."""
        return self.seconds + time.perf_counter() - self.started

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        losses = self.losses.tolist()
        return {"done": self.done, "losses": losses, "seconds": self.elapsed(), "waited": self.input.read()}

    @classmethod
    def from_dict(cls, state: dict[str, Any], device: torch.device) -> Self:
        """Epoch of a checkpoint, continued on ``device``."""
        losses, seconds = state["losses"], state["seconds"]
        return cls(
            len(losses), device, done=state["done"], losses=losses, seconds=seconds, input_seconds=state["waited"]
        )


def read_progress(
    state: Mapping[str, Any], phases: int, device: torch.device, path: Path
) -> tuple[list[dict[str, Any]], EpochState]:
    """Read the records of the epochs done, and the current epoch, of the checkpoint at ``path``.

    Raises:
        ValueError: it has none, or of another network.
    """
    try:
        history, epoch = list(state["history"]), EpochState.from_dict(state["epoch"], device)
        sane = type(epoch.done) is int and epoch.done >= 0 and epoch.losses.shape == (phases,)
        sane = sane and all({"epoch", "losses", "mix", "seconds"} <= record.keys() for record in history)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
        sane = False
    if not sane:
        raise ValueError(f"{path} does not say how far it was trained; it is of no run of pmsi")
    return history, epoch


def _record_event(*, enable_timing: bool = False) -> Any:
    make: Any = torch.cuda.Event
    event = make(enable_timing=enable_timing)
    event.record()
    return event
