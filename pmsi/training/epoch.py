"""State of the epoch under way (losses, counts, times), and a clock that does not wait for the GPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor


class Clock:
    """Time that passes within ``with clock:``, as the device lives it; nothing waits for the device until it is read.

    Args:
        seconds: that have passed already.
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
        """Seconds so far."""
        for start, end in zip(self.marks[::2], self.marks[1::2], strict=True):
            self.seconds += start.elapsed_time(end) / 1000 if self.is_cuda else end - start
        self.marks.clear()
        return self.seconds

    def _mark(self) -> Any:
        if not self.is_cuda:
            return time.perf_counter()
        return _record_event(enable_timing=True)


class EpochState:
    """The epoch under way.

    Args:
        phases: S + 1.
        done: mini-batches.
        losses: ``[S + 1]``, summed over them.
        seconds: of training before this process.
        waited: of these, for input.
    """

    def __init__(
        self,
        phases: int,
        device: torch.device,
        *,
        done: int = 0,
        losses: Sequence[float] = (),
        seconds: float = 0.0,
        waited: float = 0.0,
    ) -> None:
        self.done = done
        self.losses = torch.tensor(losses or [0.0] * phases, device=device)
        # int64 [S + 1], the first mini-batch, from 1, whose loss was not finite; or far away
        self.first_bad = torch.full((phases,), 2**62, device=device)
        self.input, self.seconds, self.started = Clock(device, waited), seconds, time.perf_counter()
        self.copied: Any = None  # when `shown` is to be read
        self.shown = torch.zeros(phases, pin_memory=device.type == "cuda")

    def add(self, losses: Tensor) -> None:
        """One mini-batch more. Nothing here waits for the device."""
        self.done += 1
        self.losses += losses
        bad = torch.where(losses.isfinite(), self.first_bad, self.done)
        self.first_bad = torch.minimum(self.first_bad, bad)

    def latest_losses(self) -> list[float]:
        """Mean losses ``[S + 1]`` of the epoch, as far as they have come from the device."""
        if not self.losses.is_cuda:
            return (self.losses / self.done).tolist()
        shown: list[float] = []
        if self.copied is None or self.copied.query():
            shown = self.shown.tolist() if self.copied is not None else []
            self.shown.copy_(self.losses / self.done, non_blocking=True)
            self.copied = _record_event()
        return shown

    def elapsed(self) -> float:
        """Of training, in this process and before."""
        return self.seconds + time.perf_counter() - self.started

    def to_dict(self) -> dict[str, Any]:
        losses = self.losses.tolist()
        return {"done": self.done, "losses": losses, "seconds": self.elapsed(), "waited": self.input.read()}


def _record_event(**options: Any) -> Any:
    make: Any = torch.cuda.Event
    event = make(**options)
    event.record()
    return event
