"""Mistakes planted in the kernel and its launch, and a call that shows each when what was compiled is executed.

`python -m tests.helpers.ptx.mistakes` prints the fault of each mistake; the exit code is 1 if one is not seen.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from mosaicaug import CutMix, Jigsaw, Plan
from mosaicaug.backends.request import Request
from mosaicaug.backends.triton import chunks, kernel, launch
from tests.helpers.ptx.fuzz import Call, check_call
from tests.helpers.ptx.launch import load_module
from tests.helpers.ptx.memory import Fault


@dataclass(frozen=True)
class Mistake:
    """Text of a file that is replaced, a call that must show it, and a word of the fault that it ends in."""

    name: str
    file: str
    text: str
    planted: str
    call: Callable[[], Call]
    fault: str


def make_call(plan: Plan, images: torch.Tensor) -> Call:
    """Call that carries out a plan into fresh memory."""
    shape = (len(plan), *images.shape[1:-2], *plan.size)
    out = torch.empty(shape, dtype=images.dtype)
    return Call(images, [plan], Request(images.dtype, channels_last=False), out)


def at_an_odd_address() -> Call:
    """Dense images one byte behind an aligned address."""
    images = torch.randint(0, 256, (2 * 3 * 16 * 32 + 1,), dtype=torch.uint8)[1:].view(2, 3, 16, 32)
    return make_call(Jigsaw(2, permutation="cyclic").sample(images.shape), images)


def with_an_odd_pitch() -> Call:
    """Rows of 33 bytes, of which 32 are taken, at an aligned address."""
    images = torch.randint(0, 256, (2, 3, 16, 33), dtype=torch.uint8)[..., :32]
    return make_call(Jigsaw(2, permutation="cyclic").sample((2, 3, 16, 32)), images)


def in_tiles_of_12_px() -> Call:
    images = torch.randint(0, 256, (2, 3, 16, 48), dtype=torch.uint8)
    return make_call(Jigsaw(4, permutation="cyclic").sample(images.shape), images)


def with_a_program_that_ends_early() -> Call:
    images = torch.rand(2, 3, 21, 40)
    return make_call(Jigsaw(2, permutation="cyclic").sample(images.shape), images)


def under_boxes() -> Call:
    images = torch.rand(4, 3, 21, 40)
    box = torch.tensor([[2, 8, 9, 19]] * 4, dtype=torch.int32)
    plan = CutMix().sample(images.shape, generator=torch.Generator().manual_seed(1))
    return make_call(Plan(plan.size, plan.tiles, plan.overlay, box, box, torch.ones(4)), images)


MISTAKES = (
    Mistake(
        "alignment without the address",
        "launch.py",
        "align = math.gcd(vec, begin, stride_n",
        "align = math.gcd(vec, stride_n",
        at_an_odd_address,
        "misaligned",
    ),
    Mistake(
        "alignment without the rows' stride",
        "launch.py",
        "stride_n, stride_t, stride_y, *",
        "stride_n, stride_t, *",
        with_an_odd_pitch,
        "misaligned",
    ),
    Mistake(
        "alignment as wide as a chunk",
        "launch.py",
        '"ALIGN": align if',
        '"ALIGN": vec if',
        with_an_odd_pitch,
        "misaligned",
    ),
    Mistake(
        "chunks wider than tiles",
        "launch.py",
        "out.element_size(), *lengths)",
        "out.element_size(), width * inner)",
        in_tiles_of_12_px,
        "misaligned",
    ),
    Mistake(
        "a load without its mask",
        "chunks.py",
        ", mask=base_mask[:, None], other=0)",
        ")",
        with_a_program_that_ends_early,
        "outside of all",
    ),
    Mistake(
        "an overlay without its mask",
        "chunks.py",
        ", mask=over_mask, other=0)",
        ")",
        under_boxes,
        "outside of all",
    ),
    Mistake(
        "a store without its mask",
        "chunks.py",
        ", mask=mask[:, None])",
        ")",
        with_a_program_that_ends_early,
        "written twice",
    ),
    Mistake(
        "a program too few",
        "launch.py",
        "blocks = -(-(-(-height // rows_each) * (width * inner // vec)) // chunks)",
        "blocks = -(-height // rows_each) * (width * inner // vec) // chunks",
        with_a_program_that_ends_early,
        "never written",
    ),
    Mistake(
        "planes that two programs make",
        "chunks.py",
        "(FRAMES * CHANNELS // INNER) + first_plane",
        "(FRAMES * CHANNELS // INNER)",
        lambda: make_call(Plan.identity(1, (8, 8)), torch.rand(1, 5, 8, 8)),
        "written twice",
    ),
)


def plant(mistake: Mistake, folder: Path) -> ModuleType:
    """Kernel's module with the mistake in its chunks, or in the launch that it takes its arguments from."""
    faulty = {module.__name__.rpartition(".")[2] + ".py": module for module in (chunks, launch)}[mistake.file]
    source = Path(str(faulty.__file__)).read_text(encoding="utf-8")
    assert mistake.text in source, f"{mistake.name}: {mistake.text!r} is not in {mistake.file}"
    name = f"planted_{MISTAKES.index(mistake)}"
    planted = load_module(name, source.replace(mistake.text, mistake.planted), folder)
    whole = load_module(f"{name}_kernel", Path(str(kernel.__file__)).read_text(encoding="utf-8"), folder)
    for part in ("make_chunks", "prepare"):
        if hasattr(planted, part):
            setattr(whole, part, getattr(planted, part))
    return whole


def main() -> int:
    """Plant each mistake, and execute its call with and without it."""
    unseen = 0
    with tempfile.TemporaryDirectory() as folder:
        for mistake in MISTAKES:
            check_call(mistake.call(), 90)
            try:
                check_call(mistake.call(), 90, plant(mistake, Path(folder)))
                fault = "NOT SEEN"
            except Fault as error:
                fault = str(error)
            unseen += mistake.fault not in fault
            print(f"{mistake.name}: {fault}")
    print(f"{len(MISTAKES) - unseen} of {len(MISTAKES)} mistakes are seen")
    return int(unseen > 0)


if __name__ == "__main__":
    sys.exit(main())
