"""Callbacks of a training run: the protocol, and TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class Callback(Protocol):
    """Who is told how far a run is."""

    def on_batch(self, done: int, total: int, losses: Sequence[float]) -> None:
        """``done`` of ``total`` mini-batches are trained, with these mean losses (none: they are not here yet)."""

    def on_epoch(self, record: dict[str, Any]) -> None:
        """An epoch is trained, tested and saved."""


class TensorBoard:
    """Scalars of every epoch in ``folder``; a run that goes on from an earlier epoch writes over what came after it.

    Args:
        watch: told as well.

    Raises:
        ImportError: the package tensorboard is missing.
    """

    def __init__(self, folder: Path, watch: Callback) -> None:
        from torch.utils.tensorboard import SummaryWriter  # an extra

        self.open: Any = SummaryWriter
        self.folder, self.watch = folder, watch
        self.writer: Any = None

    def on_batch(self, done: int, total: int, losses: Sequence[float]) -> None:
        self.watch.on_batch(done, total, losses)

    def on_epoch(self, record: dict[str, Any]) -> None:
        self.watch.on_epoch(record)
        epoch = record["epoch"]
        if self.writer is None:
            self.writer = self.open(str(self.folder), purge_step=epoch)
        curves = {"accuracy/concat": record["concat"], "accuracy/mix": record["mix"]}
        curves |= {f"accuracy/stage {k}": one for k, one in enumerate(record["stages"], 6 - len(record["stages"]))}
        curves |= {f"loss/phase {k}": one for k, one in enumerate(record["losses"], 1)}
        curves |= {f"speed/{name}": value for name, value in record["speed"].items() if isinstance(value, float)}
        curves |= {f"rate/group {k}": rate for k, rate in enumerate(record["lr"], 1)}
        for name, value in curves.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()
