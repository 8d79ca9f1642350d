"""Where a run computes, in which precision, and how its processes agree; `torchrun` starts them, Fabric knows them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from torch import Tensor

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "32", "bf16", "fp16"]
T = TypeVar("T")

_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def open_fabric(device: Device = "auto", precision: Precision = "auto") -> Fabric:
    """One device, or under ``torchrun`` one for each process on this and other hosts.

    Args:
        precision: "bf16" and "fp16" are autocast (weights, statistics and losses stay float32; fp16 scales losses);
            "auto" is bf16 on GPUs that have it and 32 elsewhere.

    Raises:
        ValueError: this machine has no such device, or too few for its processes, or it has no fp16.
    """
    accelerator: str = "gpu" if device == "cuda" else device
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "auto"
    kind = {"gpu": "cuda", "mps": "mps"}.get(accelerator, "cpu")
    if precision == "auto":
        precision = "bf16" if kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    if precision == "fp16" and kind != "cuda":
        raise ValueError("--precision fp16: needs a CUDA device; choose bf16 or 32")
    how: dict[str, Any] = {"devices": 1}
    if TorchElasticEnvironment.detect():
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        # The stages train one after the other: in every phase other parameters are idle.
        how = {"devices": here, "strategy": DDPStrategy(find_unused_parameters=True)}
        how["num_nodes"] = TorchElasticEnvironment().world_size() // here
    if precision != "32":
        how["plugins"] = _Autocast("bf16-mixed" if precision == "bf16" else "16-mixed", kind)
    try:
        fabric = Fabric(accelerator=accelerator, **how)
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"--device {device}: this machine cannot offer it ({error})") from error
    return fabric


def find_input_dtype(fabric: Fabric) -> torch.dtype:
    """What images are made in: what the first convolution computes in."""
    return _DTYPES.get(fabric.strategy.precision.precision, torch.float32)


class Processes:
    """The processes of a run.

    Args:
        fabric: launched.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.fabric, self.count, self.rank = fabric, fabric.world_size, fabric.global_rank

    def find_largest(self, number: int) -> int:
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
        failed = self.find_largest(int(error is not None))
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


def find_rank() -> int:
    """The number of this process among those that ``torchrun`` started, 0 where it did not."""
    return int(os.environ.get("RANK", "0"))


@functools.cache
def _open_host_group() -> Any:
    # The others wait while the first process decodes a data set.
    return dist.new_group(backend="gloo", timeout=timedelta(days=1))


class _Autocast(MixedPrecision):
    """Fabric's, but what goes in stays as it is: autocast casts what it must, and label weights stay exact."""

    def convert_input(self, data: Any) -> Any:
        return data
