"""Where a run is between two mini-batches, and whether it is asked to stop there."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor


@dataclass
class Epoch:
    """The epoch under way."""

    done: int  # mini-batches
    losses: Tensor  # [S + 1], summed over them
    first_bad: Tensor  # int64 [S + 1], the first mini-batch, from 1, whose loss was not finite; or far away
    seconds: float  # before this process
    started: float

    @classmethod
    def begin(
        cls, phases: int, device: torch.device, done: int = 0, losses: Sequence[float] = (), seconds: float = 0.0
    ) -> Epoch:
        total = torch.tensor(losses or [0.0] * phases, device=device)
        return cls(done, total, torch.full((phases,), 2**62, device=device), seconds, time.perf_counter())

    def add(self, losses: Tensor) -> None:
        """One mini-batch more. Nothing here waits for the device."""
        self.done += 1
        self.losses += losses
        bad = torch.where(losses.isfinite(), self.first_bad, self.done)
        self.first_bad = torch.minimum(self.first_bad, bad)

    def find_seconds(self) -> float:
        return self.seconds + time.perf_counter() - self.started

    def to_dict(self) -> dict[str, Any]:
        return {"done": self.done, "losses": self.losses.tolist(), "seconds": self.find_seconds()}


class Stopped(KeyboardInterrupt):
    """A run was asked to stop; it has saved what it did.

    Args:
        signal: the number that asked.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


class Interrupter:
    """Ctrl-C and SIGTERM, kept back until the run is at a place to stop at; the second one stops at once."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self.patient = True  # whether to wait

    def __enter__(self) -> Self:
        self.before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # others get no signals
            self.before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, _: object) -> None:
        if self.asked is not None or not self.patient:
            raise Stopped(number)
        self.asked = number
