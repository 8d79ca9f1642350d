"""Graceful stop: Ctrl-C and SIGTERM wait until a run can save."""

from __future__ import annotations

import signal
import threading
from typing import Any, Self


class Stopped(KeyboardInterrupt):
    """Stop of a run by a signal, after it has saved its state.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


class GracefulStop:
    """Context that delays Ctrl-C and SIGTERM: the first sets ``asked``, the second raises `Stopped` at once."""

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
