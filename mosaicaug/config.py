"""`show_config`: backends and versions found on this machine, and what carries out a plan."""

from __future__ import annotations

import importlib.metadata
import platform

import torch

from mosaicaug.backends.cpu import compiled


def show_config() -> None:
    """Print versions, and what carries out a plan on a CPU, on a GPU, and where gradients are recorded.

    A fallback is used where its better is missing; it gives the same bits, more slowly, and the line says why.

    Examples:
        >>> from mosaicaug import show_config
        >>> show_config()  # doctest: +ELLIPSIS
        mosaicaug ...
        CPU: ...
        GPU: ...
        gradients: torch's operations, on any device
    """
    versions = {
        "mosaicaug": _read_version("mosaicaug"),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"CPU: {_describe_cpu()}, {torch.get_num_threads()} threads (torch.set_num_threads)")
    print(f"GPU: {_describe_gpu()}")
    print("gradients: torch's operations, on any device")


def _describe_cpu() -> str:
    reason = compiled.describe()
    if reason:
        return f"fallback to torch's operations, for there is no compiled kernel: {reason}"
    dtypes = ", ".join(str(dtype).removeprefix("torch.") for dtype in compiled.TYPES)
    return f"compiled kernel ({dtypes}; torch's operations where it would calculate with other dtypes)"


def _describe_gpu() -> str:
    triton = _read_version("triton")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    if triton == "missing":
        return f"{device}; triton is missing: images on a GPU need backend='torch', which is slower"
    return f"{device}; triton {triton}"


def _read_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
