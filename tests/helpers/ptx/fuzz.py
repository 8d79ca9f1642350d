"""Random launches of the compiled kernel, executed and compared with the reference backend: bits, bounds, alignment.

`python -m tests.helpers.ptx.fuzz MINUTES [FIRST_SEED]` prints every launch that is wrong, and writes what was covered
to bench/results; the exit code is 1 if any was wrong.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import random
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench import results
from mosaicaug import CutMix, Jigsaw, MixUp, Plan, RecursiveMosaic, SnapMix
from mosaicaug.backends import reference
from mosaicaug.backends.request import Request
from mosaicaug.backends.triton import kernel as backend
from mosaicaug.backends.triton.table import pack
from mosaicaug.contents import Overlay
from tests.helpers.ptx.launch import compile_launch, execute, specialise
from tests.helpers.ptx.memory import Fault

DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
ARCHITECTURES = (80, 90)
FILL = 99  # of an output before it is written
FACTS = ("VEC", "ALIGN", "ROWS", "INNER", "OVERLAY", "CONTIGUOUS", "PACKED")  # of a kernel, that a summary counts
EACH = 16  # launches of a seed, with plans and pixels of their own: compiling takes as long as executing 15 of them
PATH = results.FOLDER / "trust-launches.json"


@dataclass(frozen=True)
class Call:
    """Arguments of one launch.

    Args:
        images: stored images.
        plans: plans of one batch and size.
        request: the checked arguments.
        out: where the output goes.
        resident: small tensors of the request that are on the GPU already.
        label: its layouts, for messages.
    """

    images: Tensor
    plans: list[Plan]
    request: Request
    out: Tensor
    resident: tuple[str, ...] = ()
    label: str = ""

    def __str__(self) -> str:
        given = [name for name in ("index", "window", "mean", "std") if getattr(self.request, name) is not None]
        dtypes = f"{self.images.dtype}->{self.out.dtype}"
        return f"{self.label} {list(self.images.shape)} {dtypes} {given} nearest={self.request.nearest}"


def draw_call(seed: int, draw: int = 0) -> Call:
    """Random arguments: plans, layouts, dtypes, and stages of a pipeline; other values in each ``draw`` of a seed."""
    rng = random.Random(seed)
    torch.manual_seed(rng.randrange(2**31) + draw)
    batch, channels = rng.randint(1, 4), rng.choice([1, 1, 2, 3, 3, 3, 4, 5])
    size = rng.randint(4, 70), rng.choice([8, 16, 24, 28, 32, 56, 64, 96, rng.randint(4, 70)])
    lead = () if rng.random() < 0.75 else (rng.randint(1, 4),)
    name, plans = _draw_plans(rng, batch, size)
    dtype = rng.choice(DTYPES)
    single = len(plans) == 1
    nearest = rng.random() < 0.1
    stages: dict[str, Tensor] = {}
    stored, room = batch, (0, 0)
    if single and rng.random() < 0.35:
        room = rng.randint(0, 9), rng.randint(0, 9)
        columns = [torch.randint(extra + 1, (batch,)) for extra in room]
        stages["window"] = torch.stack([*columns, torch.randint(2, (batch,))], 1)
    if single and rng.random() < 0.35:
        stored = rng.randint(1, 6)
        stages["index"] = torch.randint(stored, (batch,))
    if single and not nearest and rng.random() < 0.4:
        work = torch.float64 if dtype == torch.float64 else torch.float32
        stages["mean"] = torch.rand(channels, dtype=work)
        if rng.random() < 0.7:
            stages["std"] = torch.rand(channels, dtype=work) + 0.5
    made = rng.choice(DTYPES) if single and not nearest and rng.random() < 0.5 else dtype
    layout, images = _draw_images(rng, (stored, *lead, channels, size[0] + room[0], size[1] + room[1]), dtype)
    out_layout, out = _draw_out(rng, (batch * len(plans), *lead, channels, *size), made)
    resident = tuple(name for name in ("index", "window") if name in stages and rng.random() < 0.5)
    request = Request(made, channels_last=False, nearest=nearest, **stages)
    return Call(images, plans, request, out, resident, f"seed {seed}.{draw}: {name}, {layout} -> {out_layout}")


def check_call(
    call: Call, architecture: int, module: Any = backend, kernels: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Compile and execute a call, and compare it with the reference backend.

    Args:
        call: what to launch.
        architecture: 80 or 90.
        module: that holds the kernel.
        kernels: of this architecture and module, compiled by calls before; what is new is added.

    Returns:
        The kernel's arguments.

    Raises:
        Fault: an access is wrong, or the bits are not the reference's.
    """
    call.out.fill_(FILL)
    launch = module.typed_arguments(call.images, pack(call.plans), call.request, call.out)
    arguments: dict[str, Any] = launch[1]
    for name in call.resident:
        arguments |= {f"{name}_ptr": getattr(call.request, name).contiguous(), f"{name}_at": 0}
    kernels = {} if kernels is None else kernels
    key = str(specialise(arguments, module._apply_plan_kernel))
    if key not in kernels:
        kernels[key] = compile_launch(arguments, architecture, module)
    execute(launch, kernels[key], module=module)
    for got, plan in zip(torch.split(call.out, len(call.plans[0])), call.plans, strict=True):
        want = reference.run(call.images, plan, call.request, None)
        if not torch.equal(got, want):
            raise Fault(f"{int((got != want).sum())} of {got.numel()} values differ from the reference backend's")
    return arguments


def main() -> int:
    """Execute random launches for some minutes, and add the counts to those of `PATH`."""
    minutes, first = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    start = time.monotonic()
    found = check_seeds(
        itertools.takewhile(lambda _: time.monotonic() < start + 60 * minutes, itertools.count(first)), EACH
    )
    rows = [{"fact": fact, "launches": count} for fact, count in sorted(found.covered.items())]
    head = results.describe_environment("cpu") | {
        "minutes": round((time.monotonic() - start) / 60, 1),
        "first_seed": first,
        "kernels": found.kernels,
        "launches": found.launches,
        "failures": found.wrong,
    }
    results.write_results(PATH, head, rows)
    print(f"{found.launches} launches of {found.kernels} kernels, {found.wrong} wrong; {PATH} is written")
    return found.wrong


@dataclass
class Found:
    """Counts of a run: launches, those that were wrong, kernels that were compiled, launches by facts of theirs."""

    launches: int = 0
    wrong: int = 0
    kernels: int = 0
    covered: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


def check_seeds(seeds: Iterable[int], each: int = 1) -> Found:
    """Check ``each`` calls of every seed; one seed after the other is compiled for each architecture in turn."""
    found = Found()
    for seed in seeds:
        architecture, kernels = ARCHITECTURES[seed % len(ARCHITECTURES)], dict[str, Any]()
        for draw in range(each):
            call = draw_call(seed, draw)
            try:
                arguments = check_call(call, architecture, kernels=kernels)
                facts = arguments | {"OVERLAY": Overlay(arguments["OVERLAY"]).name}
                found.covered.update(f"{name} {facts[name]}" for name in FACTS)
            except Fault as fault:
                found.wrong += 1
                print(f"sm_{architecture} {call}: {fault}", flush=True)
            found.launches += 1
        found.kernels += len(kernels)
    return found


def _draw_plans(rng: random.Random, batch: int, size: tuple[int, int]) -> tuple[str, list[Plan]]:
    shape = (batch, 3, *size)
    recursions = rng.randint(1, max(1, int(math.log2(min(size))) - 1))
    jigsaw = Jigsaw(rng.randint(2, max(2, min(*size, 9))))
    tiled = rng.choice([RecursiveMosaic(recursions), jigsaw]).sample(shape)
    overlaid = rng.choice([CutMix(p=0.8), MixUp(p=0.8), SnapMix(1.0)]).sample(shape)
    name = rng.choice(["tiles", "tiles", "overlay", "overlay", "elsewhere", "tiles and overlay", "phases", "identity"])
    if name == "phases":
        return name, RecursiveMosaic(min(recursions, 3)).sample_phases(shape)
    if name == "elsewhere":
        height, width = rng.randint(1, size[0]), rng.randint(1, size[1])
        boxes = []
        for _ in range(2):
            y, x = rng.randint(0, size[0] - height), rng.randint(0, size[1] - width)
            boxes.append(torch.tensor([[y, x, y + height, x + width]] * batch, dtype=torch.int32))
        partners = torch.randperm(batch).int()
        opacity = torch.rand(batch) if rng.random() < 0.3 else torch.ones(batch)
        still = Plan.identity(batch, size)
        moved = dataclasses.replace(still, from_box=boxes[0], to_box=boxes[1], overlay=partners, opacity=opacity)
        return name, [moved]
    plans = {
        "tiles": tiled,
        "overlay": overlaid,
        "tiles and overlay": dataclasses.replace(overlaid, tiles=tiled.tiles),
        "identity": Plan.identity(batch, size),
    }
    return name, [plans[name]]


def _draw_images(rng: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[str, Tensor]:
    """Images of a shape in some layout, at some offset from an aligned address."""
    *lead, c, h, w = shape
    before, after, start = rng.randint(0, 9), rng.randint(0, 9), rng.randint(1, 17)
    pitch = w + rng.choice([1, 2, 3, 4, 8, 16])
    count = math.prod(shape)
    last = (*lead, h, w, c)
    layouts = {
        "dense": lambda: _fill(shape, dtype),
        "last": lambda: _fill(last, dtype).movedim(-1, -3),
        f"dense at {start}": lambda: _fill((count + start,), dtype)[start:].view(shape),
        f"last at {start}": lambda: _fill((count + start,), dtype)[start:].view(last).movedim(-1, -3),
        f"sliced {before} {after}": lambda: _fill((*lead, c, h + 3, w + before + after), dtype)[
            ..., 1 : 1 + h, before : before + w
        ],
        f"last sliced {before} {after}": lambda: _fill((*lead, h + 3, w + before + after, c), dtype)[
            ..., 1 : 1 + h, before : before + w, :
        ].movedim(-1, -3),
        "last of one channel more": lambda: _fill((*lead, h, w, c + 1), dtype)[..., :c].movedim(-1, -3),
        "transposed": lambda: _fill((*lead, c, w, h), dtype).mT,
        "expanded": lambda: _fill((1, *shape[1:]), dtype).expand(shape),
        f"pitch {pitch}": lambda: _fill((*lead, c, h, pitch), dtype)[..., :w],
        "every second": lambda: _fill((*lead, c, h, 2 * w), dtype)[..., ::2],
        "pixels outermost": lambda: _fill((h, w, *lead, c), dtype).movedim((0, 1), (-2, -1)),
    }
    name = rng.choice([*layouts, *(4 * ["dense", "last"])])
    return name, layouts[name]()


def _draw_out(rng: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[str, Tensor]:
    last, start = rng.random() < 0.5, rng.choice([0, 0, 0, 1, 2, 3, 4, 8])
    *lead, c, h, w = shape
    flat = torch.empty(math.prod(shape) + start + 5, dtype=dtype)[start : start + math.prod(shape)]
    out = flat.view(*lead, h, w, c).movedim(-1, -3) if last else flat.view(shape)
    return f"{'last' if last else 'dense'} at {start}", out


def _fill(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, dtype=dtype)
    return (torch.rand(shape, dtype=torch.float32) * 300 - 20).to(dtype)


if __name__ == "__main__":
    sys.exit(main() > 0)
