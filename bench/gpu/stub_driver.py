"""CUDA driver that launches nothing: Triton's own launcher runs as on a GPU, and the host's part can be timed.

The library has to be on ``LD_LIBRARY_PATH`` when the process starts, which `run_stubbed` sees to.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = "MOSAICAUG_STUB_DRIVER"  # environment variable that names the library's folder in a stubbed process
SOURCE = Path(__file__).with_suffix(".c")


def run_stubbed(module: str, words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a module in a process whose CUDA driver is the stub; needs a C compiler, as Triton's launcher does."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "libcuda.so.1"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)], check=True)
        (library.parent / "libcuda.so").symlink_to(library)
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        environment |= {
            FOLDER: folder,
            "LD_LIBRARY_PATH": folder,
            "TRITON_LIBCUDA_PATH": folder,
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            [sys.executable, "-m", module, *words], env=environment, check=False, text=True, **options
        )


def use_stub() -> ctypes.c_long:
    """Make the stub Triton's driver, with the CPU as its device; returns the number of launches, which grows."""
    library = ctypes.CDLL(f"{os.environ[FOLDER]}/libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia import driver as nvidia

    from mosaicaug.backends.triton import kernel

    class StubDriver(nvidia.CudaDriver):  # type: ignore[misc]
        """Driver of an sm_90 that torch knows nothing of."""

        def __init__(self) -> None:
            self.utils = nvidia.CudaUtils()
            self.launcher_cls = nvidia.CudaLauncher
            self.get_current_stream = lambda _device: 0
            self.get_current_device = lambda: 0
            self.set_current_device = lambda _device: None
            self.get_device_capability = lambda _device: (9, 0)

        def get_current_target(self) -> Any:
            return GPUTarget("cuda", 90, 32)

    triton.runtime.driver.set_active(StubDriver())
    kernel.check_device = lambda device: None  # noqa: ARG005
    return ctypes.c_long.in_dll(library, "stub_launches")
