"""Callbacks of a training run: the protocol, and a silent one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Callback(Protocol):
    """Interface of an object that is called as a run proceeds."""

    def on_batch(self, done: int, total: int, losses: Sequence[float]) -> None:
        """Called after each mini-batch.

        Args:
            done, total: mini-batches of the epoch.
            losses: means over the epoch so far, one per phase; empty while they are not yet copied from the device.
        """

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Called when an epoch is trained, tested and saved, with its line of ``metrics.jsonl``."""


class Silent:
    """Callback that does nothing."""

    def on_batch(self, done: int, total: int, losses: Sequence[float]) -> None: ...

    def on_epoch(self, record: dict[str, Any]) -> None: ...
