"""Device and precision of a run, as a launched Fabric; under `torchrun` one device per process."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "32", "bf16", "fp16"]

_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def open_fabric(device: Device = "auto", precision: Precision = "auto") -> Fabric:
    """Launch Fabric on one device, or under ``torchrun`` on one per process, on this and other hosts.

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
    devices, hosts = 1, 1
    strategy: str | DDPStrategy = "auto"
    if TorchElasticEnvironment.detect():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        hosts = TorchElasticEnvironment().world_size() // devices
        # The stages train one after the other: in every phase other parameters are idle.
        strategy = DDPStrategy(find_unused_parameters=True)
    plugins = None if precision == "32" else _Autocast("bf16-mixed" if precision == "bf16" else "16-mixed", kind)
    try:
        fabric = Fabric(accelerator=accelerator, strategy=strategy, devices=devices, num_nodes=hosts, plugins=plugins)
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"--device {device}: this machine cannot offer it ({error})") from error
    if fabric.device.type == "cpu" and platform.libc_ver()[0] == "glibc":
        _keep_freed_memory()
    return fabric


def input_dtype(fabric: Fabric) -> torch.dtype:
    """Data type of the network's input images: that of the first convolution's arithmetic."""
    return _DTYPES.get(fabric.strategy.precision.precision, torch.float32)


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory up to 1 GiB a piece: maps of every step otherwise come as fresh pages.

    A twentieth of a training step at 96 px, a tenth at 64 px went into these page faults. The process holds its peak
    of memory until it ends.
    """
    trim_threshold, mmap_threshold = -1, -3  # numbers of <malloc.h>
    libc = ctypes.CDLL(None)
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(mmap_threshold, 2**30)


class _Autocast(MixedPrecision):
    """Fabric's mixed precision without its cast of inputs: autocast casts what it must, label weights stay exact."""

    def convert_input(self, data: Any) -> Any:
        return data
