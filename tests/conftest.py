"""Fixtures that several test files share.

What takes seconds to import is imported where it is used: `pytest -n` first reads this file in a process that runs no
test, while nothing else happens.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Kernel without a GPU: "triton", in Triton's interpreter; or "ptx", compiled for sm_90 and executed in numpy.
KERNEL = os.environ.get("KERNEL", "triton")
SPARE = Path(__file__).parent / "helpers" / "spare"


def hands_tests_out() -> bool:
    """True in the process of `pytest -n` that runs no test itself."""
    return "PYTEST_XDIST_WORKER" not in os.environ and "-n" in sys.argv and sys.argv[sys.argv.index("-n") + 1] != "0"


if not hands_tests_out():
    import torch

    if not torch.cuda.is_available() and KERNEL != "ptx":
        os.environ["TRITON_INTERPRET"] = "1"  # read when kernels are defined: before anything imports Triton
    # Lightning Fabric imports torchmetrics only to compare its version, 1.3 s of each process where it is installed.
    sys.path.insert(0, str(SPARE))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(SPARE), os.environ.get("PYTHONPATH"))))


@pytest.fixture(params=["cpu", KERNEL, "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every way to carry out a plan: torch on a CPU, the kernel without a GPU (see `KERNEL`), the kernel on a GPU.

    What this machine cannot do is reported as skipped.
    """
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    if request.param == KERNEL:
        request.getfixturevalue("interpreter")
        return torch.device("cpu")
    return torch.device(request.param)


@pytest.fixture
def kernel_device(request: pytest.FixtureRequest) -> torch.device:
    """Device on which `apply` takes the kernel: a GPU, or a CPU with the kernel in Triton's interpreter."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    request.getfixturevalue("interpreter")
    return torch.device("cpu")


@pytest.fixture
def large_programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Programs of many chunks of one row: Triton's interpreter takes time for each program and row, however large."""
    pytest.importorskip("triton")
    from mosaicaug.backends.triton import launch
    from tests.helpers.interpreter import leave_out_waste

    monkeypatch.setattr(launch, "CHUNKS", 16 * launch.CHUNKS)
    monkeypatch.setattr(launch, "MOST_ROWS", 1)
    with leave_out_waste():
        yield


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """`backend="auto"` takes the Triton kernel for CPU images as it does for CUDA images; see `KERNEL`."""
    if torch.cuda.is_available():
        pytest.skip("the kernel runs on the GPU instead")
    module = importlib.import_module("mosaicaug.apply")
    find = module._import_triton

    def find_on_cpu(images: torch.Tensor, backend: str) -> Any:
        return find(images, "triton" if backend == "auto" and not module._needs_grad(images) else backend)

    monkeypatch.setattr(module, "_import_triton", find_on_cpu)
    if KERNEL == "ptx":
        from tests.helpers.ptx.launch import run

        kernel = importlib.import_module("mosaicaug.backends.triton.kernel")
        monkeypatch.setattr(kernel, "check_device", lambda _: None)
        monkeypatch.setattr(kernel, "run", functools.partial(run, architecture=90))
        return
    request.getfixturevalue("large_programs")
    from tests.helpers.interpreter import round_to_bfloat16

    interpreter = pytest.importorskip("triton.runtime.interpreter")
    monkeypatch.setattr(interpreter, "_convert_float", round_to_bfloat16(interpreter._convert_float))


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU backend has no compiled kernel, as where no C compiler was found."""
    from mosaicaug.backends.cpu import compiled

    monkeypatch.setattr(compiled, "load", lambda: None)


@pytest.fixture
def poison() -> Iterator[None]:
    """Fresh memory is full of NaN (integers: of their maximum), so a pixel that nobody wrote is seen."""
    was_on, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(mode=True)
    assert torch.empty(4).isnan().all()
    yield
    torch.use_deterministic_algorithms(mode=was_on, warn_only=warned)


@pytest.fixture
def sync_mode() -> Iterator[None]:
    """Whatever a test says of waiting for the GPU, the next may wait again."""
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def small_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer gets a backbone of milliseconds a step."""
    from tests.helpers.small_run import make_backbone

    monkeypatch.setattr("pmsi.models.registry.make_backbone", make_backbone)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """ImageFolder of three classes with four training and two test images."""
    from PIL import Image

    from tests.helpers.small_run import make_dataset

    root, dataset = tmp_path / "photos", make_dataset()
    for part, split in (("train", dataset.train), ("test", dataset.test)):
        for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            path = root / part / "abc"[label] / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return root
