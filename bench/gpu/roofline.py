"""Roofline of one launch: time of each resource beside the time of memory, on GPUs of known rates.

Every figure is a model's: instructions are counted in machine code for sm_90, sectors come from executed addresses, and
the rates of `CHIPS` are assumed. It ranks kernels and promises nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.gpu.machine_code import WARPS, Cost, count_cost, disassemble, list_paths, list_pixel_lines, mix
from bench.gpu.traffic import SECTOR, Side, Watcher
from mosaicaug.backends.triton import kernel as backend
from mosaicaug.backends.triton.launch import Launch
from tests.helpers.ptx.launch import compile_launch, execute

ARCHITECTURE = 90
START = 0.3e-6  # s, of a program: scheduling, constants, first instruction
ISSUE = 2  # cycles from an instruction to one that depends on it, with four warps in turn
SAMPLE = 256  # programs that are executed
L1_FILL = 64  # bytes a cycle of a multiprocessor from L2


@dataclass(frozen=True)
class Chip:
    """Rates of a GPU.

    Args:
        name: of the GPU.
        multiprocessors: number of them.
        clock: Hz under load.
        memory: bytes/s of a large copy, reads and writes: 90 % of the data sheet's.
        l2: bytes/s of the L2 cache, reads and writes.
        latency: s of an access to memory that is not loaded.
        hit: s of an access that hits L2.
    """

    name: str
    multiprocessors: int
    clock: float
    memory: float
    l2: float
    latency: float = 0.5e-6
    hit: float = 0.16e-6


CHIPS = (Chip("H100", 132, 1.755e9, 3.0e12, 5.5e12), Chip("H200", 132, 1.755e9, 4.3e12, 5.5e12))


@dataclass(frozen=True)
class Counted:
    """Counts of one launch, per program where not said otherwise."""

    registers: int
    resident: int  # programs of a multiprocessor
    programs: int  # of the launch
    ways: list[tuple[float, Cost]]  # share of programs, and cost of a warp: one, or two where some code is skipped
    load: Side  # of the programs that were executed
    store: Side
    executed: int
    moved: float  # bytes that have to be read and written at least

    @property
    def cost(self) -> Cost:
        """Mean cost of a warp."""
        return mix(self.ways)

    @property
    def instructions_per_kb(self) -> float:
        """Instructions of a warp for each KB that it has to move."""
        return self.cost.instructions * WARPS / (self.moved / 1024)

    @property
    def bytes_in_flight(self) -> int:
        """Pixel bytes that a full multiprocessor waits for at a time, at most."""
        return self.resident * WARPS * 32 * max((wait.pixel_bytes for wait in self.cost.waits), default=0)

    @property
    def efficiency(self) -> tuple[float, float]:
        """Bytes that lanes asked for by bytes of the sectors that come for them: of loads and of stores."""
        load, store = (side.bytes / max(1, side.sectors * SECTOR) for side in (self.load, self.store))
        return load, store


def count(launch: Launch, *, reads: float = 1.0, batch: int = 1, module: Any = backend) -> Counted:
    """Compile a launch, count its machine code, and execute it for its addresses.

    Args:
        launch: programs and arguments, of few images.
        reads: source pixels that an output pixel needs at least: 2 where images are blended.
        batch: times as many programs as the launch has.
        module: with the kernel.
    """
    [programs], arguments = launch
    compiled = compile_launch(arguments, ARCHITECTURE, module)
    code = disassemble(compiled)
    lines = list_pixel_lines()
    costs = [count_cost(path, lines) for path in list_paths(code)]
    images, out = arguments["images_ptr"], arguments["out_ptr"]
    watcher = Watcher(images, out)
    chosen = np.sort(np.random.default_rng(0).permutation(programs)[:SAMPLE])
    memory = execute(launch, compiled, module=module, numbers=chosen, watch=watcher.see)
    load, store = watcher.finish()
    share = sum(steps < max(memory.steps) for steps in memory.steps) / len(chosen)  # programs that skip some code
    ways = [(1.0, costs[0])] if len(costs) == 1 else [(share, costs[0]), (1 - share, costs[-1])]
    moved = store.bytes * (1 + reads * images.element_size() / out.element_size()) / len(chosen)
    return Counted(code.registers, code.resident, programs * batch, ways, load, store, len(chosen), moved)


def predict(counted: Counted, chip: Chip) -> dict[str, float]:
    """Time of each resource by the time of memory, for the whole launch."""
    rate, per = chip.multiprocessors * chip.clock, 1 / counted.executed
    load, store, cost = counted.load, counted.store, counted.cost
    sectors = (load.of_programs + store.sectors) * per
    pipe, cycles = max(cost.cycles.items(), key=lambda item: item[1])
    life = START + chip.hit + cost.instructions * 4 / chip.clock / ISSUE
    for share, way in counted.ways:
        life += share * sum(chip.latency if wait.pixel_bytes else chip.hit for wait in way.waits)
    seconds = {  # of a program
        pipe: cycles * WARPS / 4 / rate,
        "L1": (load.lines + store.lines) * per / rate,
        "L1 from L2": sectors * SECTOR / L1_FILL / rate,
        "L2": sectors * SECTOR / chip.l2,
        "latency": life / (chip.multiprocessors * counted.resident),
    }
    return {name: value / (counted.moved / chip.memory) for name, value in seconds.items()}


def floor(loaded: int, stored: int, chip: Chip) -> float:
    """Least time of L2 by the time of memory, for a copy that has to load whole sectors: of bytes so loaded."""
    return (loaded + stored) / chip.l2 / (2 * stored / chip.memory)


def make_row(counted: Counted) -> dict[str, Any]:
    """Figures of a launch, as a row of results."""
    load, store = counted.efficiency
    row: dict[str, Any] = {
        "registers": counted.registers,
        "resident": counted.resident,
        "instructions_per_kb": round(counted.instructions_per_kb, 1),
        "barriers": counted.cost.barriers,
        "waits": len(counted.cost.waits),
        "sector_efficiency": [round(load, 3), round(store, 3)],
        "in_flight_kb": round(counted.bytes_in_flight / 1024, 1),
    }
    for chip in CHIPS:
        ratios = predict(counted, chip)
        limiter = max(ratios, key=lambda name: ratios[name])
        fraction = round(min(1.0, 1 / ratios[limiter]), 2)
        row[chip.name] = {"limiter": limiter, "ratio": round(ratios[limiter], 3), "fraction_of_copy": fraction}
    return row
