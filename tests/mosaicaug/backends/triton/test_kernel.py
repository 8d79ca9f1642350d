"""The kernel as far as it can be seen without a GPU; what it computes is tested wherever `device` is."""

from __future__ import annotations

import builtins
import itertools
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mosaicaug import CutMix, Jigsaw, MixUp, Plan, RecursiveMosaic, SnapMix, apply
from mosaicaug.backends.request import Request
from mosaicaug.backends.triton.table import Table, pack
from tests.helpers.forked import run_forked
from tests.helpers.oracle import number_pixels

triton = pytest.importorskip("triton")

from triton.runtime.jit import JITFunction  # noqa: E402 - where triton is

ROOT = Path(__file__).parents[4]
SHAPE = (4, 3, 24, 32)


def run_python(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, where Triton compiles and does not interpret."""
    return run_forked(*words, cwd=ROOT)


@pytest.mark.parametrize(("every", "kernels"), [(9, 20), pytest.param(1, 150, marks=pytest.mark.slow)])
def test_specialisations_compile_wide_and_without_spills(
    every: int, kernels: int, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run_python("-m", "tests.helpers.compile_gate", str(every))
    assert done.returncode == 0, done.stdout + done.stderr
    registers = [
        tuple(map(int, found)) for found in re.findall(r"^sm_(\d+) +(\d+) registers", done.stdout, re.MULTILINE)
    ]
    assert len(registers) >= kernels
    with capsys.disabled():
        for architecture in (80, 90):
            counts = [count for seen, count in registers if seen == architecture]
            print(f"\nsm_{architecture}: {len(counts)} kernels of {min(counts)} to {max(counts)} registers", end="")


def test_the_compile_gate_sees_faults() -> None:
    done = run_python("-c", FAULTS)
    assert done.returncode == 0, done.stderr


FAULTS = """
from tests.helpers.compile_gate import *
case = next(make_cases())
built = build(case, 90)
assert list_faults(case, built) == []
copied = torch.uint8, torch.uint8, "NCHW", "NCHW"
narrow = make_case("one pixel at a time", [RecursiveMosaic(3).sample((4, 3, 448, 448))], *copied)
narrow.arguments["VEC"] = 1
assert set(build(narrow, 90).stores) == {1}
assert list_faults(case, build(narrow, 90))
shifted = make_case("an output 8 bytes off", [RecursiveMosaic(3).sample((4, 3, 448, 448))], *copied, out_begin=8)
assert list_faults(shifted, build(shifted, 90)) == []
slow = dataclasses.replace(built, cost=dataclasses.replace(built.cost, instructions=3 * built.cost.instructions))
assert any("instructions per KB" in fault for fault in list_faults(case, slow))
spills = make_case("spills", [SnapMix().sample((4, 3, 448, 448))], *copied)
spills.arguments.update(VEC=16, ALIGN=16, CHUNKS=256)
assert any("spilled" in fault for fault in list_faults(spills, build(spills, 90)))
"""


def test_executed_machine_code_gives_the_bits_of_the_reference() -> None:
    """Random launches for sm_80 and sm_90: every access aligned and in bounds, every byte written once."""
    done = run_python("-c", "from tests.helpers.ptx.fuzz import check_seeds; assert check_seeds(range(16)).wrong == 0")
    assert done.returncode == 0, done.stdout + done.stderr


def test_executed_machine_code_shows_planted_mistakes() -> None:
    """Alignment hints too wide, masks left out, programs too few; Triton's interpreter sees few of them."""
    done = run_python("-m", "tests.helpers.ptx.mistakes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 of 9 mistakes are seen" in done.stdout


@pytest.mark.usefixtures("interpreter", "poison")
@pytest.mark.parametrize("size", [(24, 32), (27, 35)])
def test_phases_take_one_launch(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Phases of one margin, and of several."""
    from mosaicaug.backends.triton import kernel as backend

    launches: list[int] = []
    run = backend.run

    def count(images: torch.Tensor, table: Table, *rest: Any) -> torch.Tensor:
        launches.append(table.plans)
        return run(images, table, *rest)

    monkeypatch.setattr(backend, "run", count)
    images = number_pixels((3, 2, *size))
    phases = RecursiveMosaic.phases(images, r=3, generator=torch.Generator().manual_seed(3))
    plans = RecursiveMosaic(3).sample_phases(images.shape, generator=torch.Generator().manual_seed(3))
    assert launches == [4]
    for phase, plan in zip(phases, plans, strict=True):
        assert torch.equal(phase, apply(images, plan, backend="torch"))


def test_bad_input() -> None:
    images, plan = number_pixels(SHAPE), Jigsaw(2).sample(SHAPE)
    done = run_python("-c", "import torch, mosaicaug as m; x = torch.zeros(2, 3, 8, 8); "
                      "m.apply(x, m.Plan.identity(2, (8, 8)), backend='triton')")  # fmt: skip
    assert done.returncode == 1
    assert "ValueError: apply: backend='triton' needs CUDA images, got cpu; move them with images.cuda()" in done.stderr
    assert "TRITON_INTERPRET=1" in done.stderr
    with pytest.raises(ValueError, match=r"apply: backend='triton' records no gradients"):
        apply(images.requires_grad_(), plan, backend="triton")
    with pytest.raises(ValueError, match=r"apply: backend='triton' needs CUDA images, got meta"):
        apply(torch.empty(SHAPE, device="meta"), plan, backend="triton")


def test_missing_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any) -> Any:
        if name == "mosaicaug.backends.triton" and "kernel" in (args[2] or ()):
            raise ModuleNotFoundError("No module named 'triton'", name="triton")
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"apply: images on a GPU need the package triton.*pip install triton"):
        apply(number_pixels(SHAPE), Jigsaw(2).sample(SHAPE), backend="triton")


def list_calls() -> list[tuple[Tensor, Plan, Request, Tensor]]:
    """Calls of one shape that differ in all that a kernel is compiled for or that is passed to it."""
    calls = []
    base = torch.zeros(4, 3, 24, 40, dtype=torch.uint8)
    last = torch.zeros(4, 24, 32, 3).movedim(-1, -3)
    meta = torch.empty(SHAPE, device="meta")
    images: list[Tensor] = [torch.zeros(SHAPE), torch.zeros(SHAPE, dtype=torch.float64), last, meta]
    images += [base[..., start : start + 32] for start in (0, 1, 4)]  # other addresses, and other strides than dense
    flat = torch.zeros(4 * 3 * 24 * 32 + 1, dtype=torch.uint8)
    images += [flat[:-1].view(SHAPE), flat[1:].view(SHAPE)]
    plans = [Jigsaw(2).sample(SHAPE), Jigsaw(4).sample(SHAPE), CutMix().sample(SHAPE), MixUp().sample(SHAPE)]
    for one, plan in itertools.product(images, plans):
        request = Request(one.dtype, channels_last=one.stride(1) == 1)
        calls.append((one, plan, request, request.make_output(SHAPE, one.device)))
    still, dense = plans[0], images[0]
    index, window = torch.tensor([3, 2, 1, 0]), torch.zeros(4, 3, dtype=torch.int64)
    for stages in (
        {"index": index},
        {"index": index.int()},
        {"window": window},
        {"mean": torch.ones(3)},
        {"std": torch.ones(3)},
        {"index": index, "window": window, "mean": torch.ones(3), "std": torch.ones(3)},
    ):
        request = Request(torch.float32, channels_last=False, **stages)  # type: ignore[arg-type]
        calls.append((dense, still, request, torch.zeros(SHAPE)))
    for nearest in (False, True):
        request = Request(torch.float32, channels_last=False, nearest=nearest)
        calls.append((dense, SnapMix().sample(SHAPE), request, torch.zeros(SHAPE)))
    halves = torch.zeros(SHAPE, dtype=torch.float16)
    calls.append((dense, still, Request(halves.dtype, channels_last=False), halves))
    request = Request(torch.float32, channels_last=False)
    calls.append((dense, still, request, torch.zeros(dense.numel() + 1)[1:].view(SHAPE)))
    calls.append((dense, still, request, torch.zeros_like(last)))
    calls.append((dense[:2], Jigsaw(2).sample((2, *SHAPE[1:])), request, torch.zeros(2, *SHAPE[1:])))
    return calls


def test_launches_that_are_kept_are_those_that_would_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call three times, in turns: whatever changed between them, arguments and compiled code are those of now."""
    from mosaicaug.backends.triton import kernel as backend
    from tests.helpers.ptx.launch import specialise

    made: list[dict[str, Any]] = []
    kept: list[tuple[Any, tuple[int, ...], dict[str, Any]]] = []
    options: dict[str, Any] = {"do_not_specialize": backend._ANY}
    real = JITFunction(backend._apply_plan_kernel.fn, **options)

    class Kernel:
        """Kernel that is not launched: keeps what it was compiled for, and what it is launched with."""

        params = real.params

        def __getitem__(self, programs: tuple[int]) -> Any:
            def compile_and_launch(**arguments: Any) -> Any:
                values = {name: arguments[name] for name in real.arg_names}
                made.append(values)
                compiled = arguments["images_ptr"].device, specialise(values, real)

                class Compiled:
                    def __getitem__(self, grid: tuple[int, ...]) -> Any:
                        names = real.arg_names
                        return lambda *given: kept.append((compiled, grid, dict(zip(names, given, strict=True))))

                return Compiled()

            return compile_and_launch

    monkeypatch.setattr(backend, "_apply_plan_kernel", Kernel())
    monkeypatch.setattr(backend, "_kept", {})
    calls = list_calls()
    for turn in range(3):
        for images, plan, request, out in calls:
            kept.clear()
            table = pack([plan])
            backend._launch(images, table, request, out)
            assert kept or turn == 0
            for compiled, grid, given in kept:
                programs, fresh = backend.typed_arguments(images, table, request, out)
                assert grid == (*programs, 1, 1)
                assert compiled == (images.device, specialise(fresh, real))
                for name, value in fresh.items():
                    if name.endswith("_ptr") and value is not None:  # words are uploaded anew by each call
                        assert isinstance(given[name], int)
                    else:
                        assert given[name] == value, name
                assert given["images_ptr"] == images.data_ptr()
                assert given["out_ptr"] == out.data_ptr()
    assert 40 < len(made) < len(calls)  # indices of 32 and of 64 bits are uploaded as the same words
    # No more are kept than MOST_KEPT.
    monkeypatch.setattr(backend, "MOST_KEPT", 5)
    backend._kept.clear()
    counts = []
    for images, plan, request, out in calls:
        backend._launch(images, pack([plan]), request, out)
        counts.append(len(backend._kept))
    assert max(counts) == 5
    assert counts[-1] < len(calls)
