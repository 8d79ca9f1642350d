"""The processes of a distributed run: shares of a batch, gathering, agreement. `torchrun` starts them."""

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
    """The processes of a run.

    Args:
        fabric: launched.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.fabric, self.count, self.rank = fabric, fabric.world_size, fabric.global_rank

    def max_over_processes(self, number: int) -> int:
        """Of all processes' numbers. Hosts talk to each other here, and no device is waited for."""
        if self.count == 1:
            return number
        shared = torch.tensor(number)
        dist.all_reduce(shared, dist.ReduceOp.MAX, _open_host_group())
        return int(shared)

    def take_turns(self, work: Callable[[], T]) -> T:
        """``work`` on the first process of each host, then on the others; what fails there fails everywhere."""
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
        """ValueError on every process that names the first value in which two differ."""
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
        """This process's rows of ``count``; the first processes have one more where they cannot be shared out."""
        least, more = divmod(count, self.count)
        start = self.rank * least + min(self.rank, more)
        return slice(start, start + least + (self.rank < more))

    def gather(self, rows: Tensor) -> Tensor:
        """All processes' ``rows`` ``[b, ...]``, as many each, in the order of the processes: ``[B, ...]``."""
        if self.count == 1:
            return rows
        gathered = self.fabric.all_gather(rows)
        assert isinstance(gathered, Tensor)
        return gathered.flatten(0, 1)

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite each by the first process's."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def sum(self, values: Tensor) -> Tensor:
        """Of all processes."""
        return self.gather(values[None]).sum(0)


def process_rank() -> int:
    """The number of this process among those that ``torchrun`` started, 0 where it did not."""
    return int(os.environ.get("RANK", "0"))


@functools.cache
def _open_host_group() -> Any:
    # The others wait while the first process decodes a data set.
    return dist.new_group(backend="gloo", timeout=timedelta(days=1))
