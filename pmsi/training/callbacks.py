"""Callbacks of a training run: the protocol, a silent one, and TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from pmsi.runtime.files import expand_home


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


class TensorBoard:
    """Callback that writes scalars of every epoch; a continued run overwrites what came after its checkpoint.

    Args:
        folder: gets the event files.
        callback: called as well.

    Raises:
        ImportError: the package tensorboard is missing.
    """

    def __init__(self, folder: Path, callback: Callback) -> None:
        from torch.utils.tensorboard import SummaryWriter  # an extra

        self.open: Any = SummaryWriter
        self.folder, self.callback = expand_home(folder), callback
        self.writer: Any = None

    def on_batch(self, done: int, total: int, losses: Sequence[float]) -> None:
        """Call the other callback."""
        self.callback.on_batch(done, total, losses)

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Write accuracies, losses, speed and learning rates of an epoch."""
        self.callback.on_epoch(record)
        epoch = record["epoch"]
        if self.writer is None:
            self.writer = self.open(str(self.folder), purge_step=epoch)
        curves: dict[str, float] = {}
        if record["mix"] is not None:
            curves |= {"accuracy/concat": record["concat"], "accuracy/mix": record["mix"]}
            curves |= {f"accuracy/stage {k}": one for k, one in enumerate(record["stages"], 6 - len(record["stages"]))}
        curves |= {f"loss/phase {k}": one for k, one in enumerate(record["losses"], 1)}
        curves |= {f"speed/{name}": value for name, value in record["speed"].items() if isinstance(value, float)}
        curves |= {f"rate/group {k}": rate for k, rate in enumerate(record["lr"], 1)}
        for name, value in curves.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()
