"""Ctrl-C and SIGTERM, held back until a run can save and stop."""

from __future__ import annotations

import signal
import threading
from typing import Any, Self


class Stopped(KeyboardInterrupt):
    """A run was asked to stop; it has saved what it did.

    Args:
        signal: the number that asked.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


class GracefulStop:
    """Ctrl-C and SIGTERM, kept back until the run is at a place to stop at; the second one stops at once."""

    def __init__(self) -> None:
        self.asked: int | None = None

    def __enter__(self) -> Self:
        self.before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # others get no signals
            self.before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: object) -> None:
        if self.asked is not None:
            raise Stopped(number)
        self.asked = number
