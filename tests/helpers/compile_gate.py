"""Gate on the compiled kernel, for GPUs that need not be there: `python -m tests.helpers.compile_gate [EVERY]`.

Every specialisation (or every EVERYth) is compiled for sm_80 and sm_90. Registers per thread are printed; faults are
loads and stores of pixels that are narrower than the layout allows, registers spilled to local memory, values that pass
through shared memory, and on sm_90 more instructions or waits than `MOST`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton

from bench.gpu.machine_code import WARPS, Cost, count_cost, disassemble, list_paths, list_pixel_lines
from mosaicaug import CutMix, Jigsaw, MixUp, Plan, RecursiveMosaic, SnapMix
from mosaicaug.backends.request import Request, make_empty
from mosaicaug.backends.triton import kernel as backend
from mosaicaug.backends.triton.table import pack
from mosaicaug.contents import Overlay
from tests.helpers.ptx.launch import compile_launch

ARCHITECTURES = (80, 90)
MODELLED = 90

# Instructions of a warp for each KB that it moves, and its waits for memory, on sm_90: at most, about a tenth above the
# slowest dtype and layout.
MOST = {  # overlays have one row a chunk: more instructions than with four, and faster on an H100
    "mosaic": (38, 4),
    "cutmix": (75, 5),
    "mosaic under cutmix": (138, 6),
    "elsewhere": (268, 42),
    "mixup": (230, 6),
    "snapmix": (1900, 5),
    "mosaic pipeline": (155, 13),
    "cutmix pipeline": (280, 5),
    "mixup pipeline": (375, 5),
    "snapmix pipeline": (1550, 6),
}


@dataclass(frozen=True)
class Case:
    """One specialisation: a name, and the kernel's arguments."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Built:
    """Properties of a compiled case."""

    registers: int
    spilled: int  # bytes of local memory
    shared: int  # bytes of shared memory, through which values would be passed between threads
    loads: dict[int, int]  # bytes of one load: how many in the program
    stores: dict[int, int]
    cost: Cost  # of the longest way through the machine code, on the architecture that is modelled


def make_cases() -> Iterator[Case]:
    """Each augmentation in each dtype and layout, the whole pipeline, and what needs a path of its own."""
    plans = {
        "mosaic": lambda shape: RecursiveMosaic(3).sample(shape),
        "cutmix": lambda shape: CutMix().sample(shape),
        "mixup": lambda shape: MixUp().sample(shape),
        "snapmix": lambda shape: SnapMix().sample(shape),
        "elsewhere": move_box,
        "mosaic under cutmix": lambda shape: dataclasses.replace(
            CutMix().sample(shape), tiles=Jigsaw(8).sample(shape).tiles
        ),
    }
    layouts = ("NCHW", "channels_last")
    # 1. Each augmentation in each dtype and layout.
    for (name, draw), dtype, last in itertools.product(
        plans.items(), (torch.uint8, torch.bfloat16, torch.float32), layouts
    ):
        yield make_case(name, [draw((4, 3, 448, 448))], dtype, dtype, last, last)
    # 2. The whole pipeline: index, window, mean and scale, from uint8.
    whole = torch.uint8, torch.bfloat16
    stages = Request(
        torch.bfloat16,
        channels_last=False,
        index=torch.arange(4),
        window=torch.zeros(4, 3, dtype=torch.int64),
        mean=torch.ones(3),
        std=torch.ones(3),
    )
    for (name, draw), dtype, stored, made in itertools.product(
        plans.items(), (torch.bfloat16, torch.float32), layouts, layouts
    ):
        yield make_case(
            f"{name} pipeline", [draw((4, 3, 448, 448))], torch.uint8, dtype, stored, made, room=64, request=stages
        )
    on_gpu = make_case(
        "indices on the GPU", [CutMix().sample((4, 3, 448, 448))], *whole, "NCHW", "NCHW", room=64, request=stages
    )
    small = {"index": stages.index, "window": stages.window, "mean": stages.mean, "scale": stages.scale}
    apart = {f"{name}_ptr": value for name, value in small.items()} | {f"{name}_at": 0 for name in small}
    yield Case(on_gpu.name, {**on_gpu.arguments, **apart})
    # 3. Sizes, dtypes and plans that need a path of their own.
    for size, dtype in itertools.product((224, 447), (torch.uint8, torch.float32)):
        yield make_case(f"jigsaw {size} px", [Jigsaw(8).sample((4, 3, size, size))], dtype, dtype, "NCHW", "NCHW")
    for dtype in (torch.float16, torch.float64):
        yield make_case(f"mixup {dtype}", [MixUp().sample((4, 3, 448, 448))], dtype, dtype, "NCHW", "NCHW")
    for dtype in (torch.uint8, torch.int64):
        snapmix, nearest = SnapMix().sample((4, 1, 448, 448)), Request(dtype, channels_last=False, nearest=True)
        yield make_case("masks under snapmix", [snapmix], dtype, dtype, "NCHW", "NCHW", request=nearest)
    for size in (448, 450):  # of 450 px, mosaics of 1 and of 3 recursions have margins of their own
        phases = RecursiveMosaic(3).sample_phases((4, 3, size, size))
        yield make_case(f"phases {size} px", phases, torch.float32, torch.float32, "NCHW", "NCHW")


def move_box(shape: tuple[int, ...]) -> Plan:
    """An overlay that lands elsewhere than it was cut."""
    box = torch.tensor([[0, 0, 100, 200]] * shape[0], dtype=torch.int32)
    return dataclasses.replace(Plan.identity(shape[0], (shape[-2], shape[-1])), from_box=box, to_box=box + 30)


def make_case(
    name: str,
    plans: list[Plan],
    dtype: torch.dtype,
    made: torch.dtype,
    stored_layout: str,
    made_layout: str,
    *,
    room: int = 0,
    out_begin: int = 0,  # elements from an aligned address
    request: Request | None = None,
) -> Case:
    (height, width), batch = plans[0].size, len(plans[0])
    images = make_empty(
        (batch, 3, height + room, width + room),
        dtype,
        torch.device("cpu"),
        channels_last=stored_layout == "channels_last",
    )
    out = make_empty(
        (batch * len(plans), 3, height, width), made, images.device, channels_last=made_layout == "channels_last"
    )
    if out_begin:
        assert made_layout == "NCHW"
        out = torch.empty(out.numel() + out_begin, dtype=made)[out_begin:].view(out.shape)
    request = request or Request(made, channels_last=made_layout == "channels_last")
    _, arguments = backend.typed_arguments(images, pack(plans), request, out)
    dtypes = "->".join(str(value).removeprefix("torch.") for value in (dtype, made))
    return Case(f"{name}, {dtypes}, {stored_layout}->{made_layout}", arguments)


def build(case: Case, architecture: int) -> Built:
    """Compile as a launch would, and read registers and widths from the machine code."""
    kernel = compile_launch(case.arguments, architecture)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(cubin)]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack, local = (int(re.search(rf"\b{key}:(\d+)", usage)[1]) for key in ("REG", "STACK", "LOCAL"))  # type: ignore[index]
    cost = Cost()
    if architecture == MODELLED:
        cost = count_cost(list_paths(disassemble(kernel))[-1], list_pixel_lines())
    ptx = kernel.asm["ptx"]
    spilled = stack + local + len(re.findall(r"\b(?:ld|st)\.local", ptx))
    shared = kernel.metadata.shared
    return Built(registers, spilled, shared, count_widths(ptx, "ld"), count_widths(ptx, "st"), cost)


def count_widths(ptx: str, kind: str) -> dict[int, int]:
    """Number of accesses to global memory of each width, bytes."""
    widths: dict[int, int] = {}
    for vector, bits in re.findall(rf"\b{kind}\.global(?:\.\w+::\w+)*(?:\.v(\d))?\.[bfus](\d+)", ptx):
        width = int(vector or 1) * int(bits) // 8
        widths[width] = widths.get(width, 0) + 1
    return widths


def list_faults(case: Case, built: Built) -> list[str]:
    """Faults of a compiled case, one line each."""
    a = case.arguments
    each = (
        a["PLANES"] * a["ROWS"] * a["CHUNKS"] // (32 * backend.OPTIONS["num_warps"])
    )  # accesses per image that is read or written
    faults = [f"{built.spilled} bytes spilled"] if built.spilled else []
    if built.shared:
        faults.append(f"values pass through {built.shared} bytes of shared memory")
    if built.cost.barriers:
        faults.append(f"{built.cost.barriers} barriers")
    per_kb, waits = MOST.get(case.name.split(",")[0], (math.inf, math.inf))
    if count_per_kb(case, built) > per_kb or len(built.cost.waits) > waits:
        faults.append(f"more than {per_kb} instructions per KB or {waits} waits")
    store = a["VEC"] * a["out_ptr"].element_size()
    ways = 2 if a["OVERLAY"] == Overlay.RESAMPLED else 1  # with the overlay, and without
    if built.stores != {store: ways * each}:
        faults.append(f"stores of bytes: {built.stores}, not {ways * each} of {store}")
    if a["CONTIGUOUS"]:
        load = a["ALIGN"] * a["images_ptr"].element_size()
        reads = each * (2 if a["OVERLAY"] in (Overlay.WHOLE, Overlay.IN_PLACE) else 1)
        if built.loads.get(load, 0) < reads:
            faults.append(f"loads of bytes: {built.loads}, not {reads} of {load}")
    return faults


def count_per_kb(case: Case, built: Built) -> float:
    """Instructions of a warp for each KB that it has to read and write at least."""
    a = case.arguments
    elements = a["PLANES"] * a["ROWS"] * a["CHUNKS"] * a["VEC"] // WARPS
    moved: int = elements * (a["images_ptr"].element_size() + a["out_ptr"].element_size())
    return built.cost.instructions / (moved / 1024)


def main(every: int = 1) -> int:
    """Check every case, or every second, third, ... one."""
    faults = 0
    for case in itertools.islice(make_cases(), 0, None, every):
        for architecture in ARCHITECTURES:
            built = build(case, architecture)
            wrong = list_faults(case, built)
            faults += len(wrong)
            widest = f"{max(built.loads)}/{max(built.stores)}"
            per_kb = f", {count_per_kb(case, built):4.0f} instructions per KB, {len(built.cost.waits)} waits"
            print(
                f"sm_{architecture} {built.registers:3} registers, {widest:>5} bytes"
                f"{per_kb if architecture == MODELLED else ''}: {case.name}",
                *wrong,
                sep="  FAULT: ",
            )
    print(f"{faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
