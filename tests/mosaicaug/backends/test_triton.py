"""The Triton backend as far as it can be seen without a GPU; what it computes is tested wherever `device` is."""

from __future__ import annotations

import builtins
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mosaicaug import CutMix, Jigsaw, MixUp, Plan, PlanBuffer, RecursiveMosaic, SnapMix, apply
from mosaicaug.backends.triton.launch import upload_inputs
from mosaicaug.backends.triton.table import Overlay, Table, pack
from tests.helpers.oracle import number_pixels

triton = pytest.importorskip("triton")
ROOT = Path(__file__).parents[3]
SHAPE = (4, 3, 24, 32)


def run_python(*words: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, where Triton compiles and does not interpret."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_specialisation_compiles_wide_and_without_spills(capsys: pytest.CaptureFixture[str]) -> None:
    done = run_python("-m", "tests.helpers.compile_gate")
    assert done.returncode == 0, done.stdout + done.stderr
    registers = [
        tuple(map(int, found)) for found in re.findall(r"^sm_(\d+) +(\d+) registers", done.stdout, re.MULTILINE)
    ]
    assert len(registers) > 150
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
assert find_faults(case, built) == []
copied = torch.uint8, torch.uint8, "NCHW", "NCHW"
narrow = make_case("one pixel at a time", [RecursiveMosaic(3).sample((4, 3, 448, 448))], *copied)
narrow.arguments["VEC"] = 1
assert set(build(narrow, 90).stores) == {1}
assert find_faults(case, build(narrow, 90))
spills = make_case("spills", [SnapMix().sample((4, 3, 448, 448))], *copied)
spills.arguments.update(VEC=16, ALIGN=16, CHUNKS=256)
assert any("spilled" in fault for fault in find_faults(spills, build(spills, 90)))
"""


@pytest.mark.parametrize(
    ("plan", "overlay", "blend"),
    [
        (RecursiveMosaic(2).sample(SHAPE), Overlay.NONE, False),
        (CutMix().sample(SHAPE, generator=torch.Generator().manual_seed(1)), Overlay.IN_PLACE, False),
        (MixUp().sample(SHAPE), Overlay.IN_PLACE, True),
        (SnapMix().sample(SHAPE), Overlay.RESAMPLED, False),
        (MixUp(p=0.0).sample(SHAPE), Overlay.NONE, False),
    ],
)
def test_a_kernel_is_compiled_for_what_the_plan_uses(plan: Plan, overlay: Overlay, *, blend: bool) -> None:
    table = pack([plan])
    assert (table.overlay, table.blend) == (overlay, blend)
    assert table.grids == ((4,) if plan.grid == 4 else ())


@pytest.mark.usefixtures("interpreter", "poison")
@pytest.mark.parametrize("size", [(24, 32), (27, 35)])
def test_phases_take_one_launch(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the phases' margins differ."""
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


@pytest.mark.usefixtures("interpreter")
def test_plan_buffer_takes_one_plan_after_another() -> None:
    images = number_pixels(SHAPE)
    for aug in (RecursiveMosaic(2), Jigsaw(4), CutMix(), MixUp(), SnapMix()):
        buffer = PlanBuffer(aug.sample(SHAPE, generator=torch.Generator().manual_seed(0)), "cpu")
        words = buffer.table.words
        for seed in range(4):
            plan = aug.sample(SHAPE, generator=torch.Generator().manual_seed(seed))
            assert torch.equal(apply(images, buffer.copy_(plan)), apply(images, plan, backend="torch"))
        assert buffer.table.words is words
        still = Plan.identity(4, SHAPE[-2:]).refine(aug.last_plan.grid if aug.last_plan else 1)
        assert torch.equal(apply(images, buffer.copy_(still)), images)


def test_plan_buffer_refuses_what_its_kernel_cannot_do() -> None:
    buffer = PlanBuffer(CutMix().sample(SHAPE, generator=torch.Generator().manual_seed(1)), "cpu")
    for plan in (
        MixUp().sample(SHAPE),
        SnapMix().sample(SHAPE),
        RecursiveMosaic(2).sample(SHAPE),
        Plan.identity(5, SHAPE[-2:]),
        Plan.identity(4, (24, 24)),
    ):
        with pytest.raises(ValueError, match=r"PlanBuffer: holds 4 images of \(24, 32\) px.*got"):
            buffer.copy_(plan)
    still = PlanBuffer(Plan.identity(4, SHAPE[-2:]).refine(4), "cpu")
    with pytest.raises(ValueError, match=r"PlanBuffer: holds .* no moved tiles .* got .* 4x4 tiles"):
        still.copy_(RecursiveMosaic(2).sample(SHAPE))
    with pytest.raises(ValueError, match=r"apply: a PlanBuffer needs the Triton backend"):
        apply(number_pixels(SHAPE), buffer)


def test_small_tensors_travel_together() -> None:
    """Words of 32 bits, those of float64 at even places."""
    table = pack([Jigsaw(3).sample(SHAPE)])
    values = {
        "index": torch.tensor([3, 1, 2]),
        "mean": torch.tensor([1.5, -2.5], dtype=torch.float64),
        "scale": torch.tensor([0.5, 0.25]).expand(2),
        "window": None,
    }
    placed: dict[str, Any] = upload_inputs(table, torch.device("cpu"), **values)
    words = placed["table_ptr"]
    assert words[: len(table.words)].equal(table.words)
    assert all(placed[f"{name}_ptr"] is words for name in ("index", "mean", "scale"))
    assert words[placed["index_at"] :][:3].tolist() == [3, 1, 2]
    assert words[2 * placed["mean_at"] :][:4].view(torch.float64).tolist() == [1.5, -2.5]
    assert words[placed["scale_at"] :][:2].view(torch.float32).tolist() == [0.5, 0.25]
    assert (placed["window_ptr"], placed["window_at"]) == (None, 0)


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
