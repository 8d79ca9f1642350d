"""Processes of a distributed run, started by `torchrun`: shares of a batch, gathering, agreement."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor

T = TypeVar("T")


class Processes:
    """Processes of a run.

    Args:
        fabric: launched.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.fabric, self.count, self.rank = fabric, fabric.world_size, fabric.global_rank

    def max_over_processes(self, number: int) -> int:
        """Maximum of all processes' numbers, exchanged between hosts without waiting for a device."""
        if self.count == 1:
            return number
        shared = torch.tensor(number)
        dist.all_reduce(shared, dist.ReduceOp.MAX, _open_host_group())
        return int(shared)

    def take_turns(self, work: Callable[[], T]) -> T:
        """Run ``work`` on the first process of each host, then on the others; a failure of the first fails all.

        Raises:
            ValueError, OSError: raised by ``work``; ValueError on the other processes.
        """
        error: ValueError | OSError | None = None
        if self.fabric.local_rank == 0:
            try:
                done = work()
            except (ValueError, OSError) as caught:
                error = caught
        failed = self.max_over_processes(int(error is not None))
        if error is not None:
            raise error
        if failed:
            raise ValueError("stopped, because another process failed; its message says why")
        return done if self.fabric.local_rank == 0 else work()

    def check_same(self, values: dict[str, Any]) -> None:
        """Check that all processes have the same values; ValueError on each names the first that differs."""
        if self.count == 1:
            return
        found: list[dict[str, Any]] = [{} for _ in range(self.count)]
        dist.all_gather_object(found, values, _open_host_group())
        for rank, other in enumerate(found):
            for name in sorted(found[0].keys() | other.keys()):
                first, here = found[0].get(name), other.get(name)
                if first != here:
                    raise ValueError(
                        f"all processes must run the same: {name} is {first!r} in process 0 and {here!r} in {rank}"
                    )

    def split(self, count: int) -> slice:
        """Rows of this process among ``count``; the first processes have one more where the division leaves a rest."""
        least, more = divmod(count, self.count)
        start = self.rank * least + min(self.rank, more)
        return slice(start, start + least + (self.rank < more))

    def gather(self, rows: Tensor) -> Tensor:
        """Gather the rows ``[b, ...]`` of all processes, equally many each, in their order: ``[B, ...]``."""
        if self.count == 1:
            return rows
        gathered = self.fabric.all_gather(rows)
        assert isinstance(gathered, Tensor)
        return gathered.flatten(0, 1)

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite each tensor by that of the first process."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all processes."""
        return self.gather(values[None]).sum(0)


def process_rank() -> int:
    """Number of this process among those that ``torchrun`` started; 0 without it."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    """Number of processes that ``torchrun`` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@functools.cache
def _open_host_group() -> Any:
    # The others wait while the first process decodes a data set.
    return dist.new_group(backend="gloo", timeout=timedelta(days=1))
