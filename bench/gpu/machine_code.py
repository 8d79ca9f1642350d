"""Cost of a warp's machine code on Hopper: issue slots, pipes, and waits for memory.

A model of throughput per sub-partition: integer ALU and IMAD are half rate, IMAD.WIDE and IMAD.HI a quarter, FP32 full
rate over two pipes (IMAD shares one of them), the conversion unit (XU) an eighth.
"""

from __future__ import annotations

import collections
import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import triton

from mosaicaug.backends.triton import chunks

WARPS = 4  # of a program
PIXEL_LOAD = re.compile(r"\btl\.load\(.*\bmask=(?!tiled)")  # lines of the kernel that load pixels
_PIPES = {
    "ALU": "IADD3 LOP3 SHF LEA ISETP SEL PRMT VIADD VIMNMX VIADDMNMX FMNMX FSETP FSEL I2FP F2FP PLOP3 P2R R2P MOV IABS "
    "HADD2 HMNMX2 FCHK BMSK SGXT IADD LEPC CS2R R2UR VOTE",
    "FP32": "FADD FMUL FFMA HFMA2 HMUL2",
    "XU": "MUFU I2F F2I F2F FRND POPC FLO",
    "FP64": "DADD DMUL DFMA DSETP",
    "IMAD": "IMAD",
    "LSU": "LDG STG LDS STS LDSM STSM LDL STL",
    "": "NOP EXIT S2R S2UR LDC ULDC BAR BSSY BSYNC DEPBAR WARPSYNC BREAK YIELD BRA CALL RET",
}
_PIPE_OF = {base: pipe for pipe, names in _PIPES.items() for base in names.split()}
_TWO_RESULTS = {"ISETP", "FSETP", "PLOP3", "DSETP", "UISETP"}
_CARRIES = {"IADD3", "LEA", "IMAD", "UIADD3", "ULEA", "UIMAD", "VIADDMNMX"}
_NO_RESULT = {"STG", "STS", "STL", "STSM", "EXIT", "BAR", "BRA", "CALL", "RET"}
_CYCLES = {"ALU": 2, "FP32": 2, "FP64": 2, "XU": 8, "LSU": 1, "uniform": 2}  # of a sub-partition, per warp instruction


@dataclass(frozen=True)
class Instruction:
    """One machine instruction: registers that it reads and writes, its line in `chunks.py`, and where it may jump."""

    name: str  # such as LDG.E.128
    reads: frozenset[str]
    writes: frozenset[str]
    line: int
    guarded: bool
    target: str = ""  # of a branch

    @property
    def base(self) -> str:
        """Name without its suffixes."""
        return self.name.split(".")[0]

    @property
    def width(self) -> int:
        """Bytes per thread of an access to memory."""
        widths = ((".128", 16), (".64", 8), (".U8", 1), (".S8", 1), (".U16", 2), (".S16", 2))
        return next((width for suffix, width in widths if suffix in self.name), 4)


@dataclass(frozen=True)
class Wait:
    """One wait of a warp: pixel bytes and loads of small tensors that a thread has in flight then."""

    pixel_bytes: int
    other_loads: int


@dataclass
class Cost:
    """Cost of a warp's way through the code."""

    instructions: float = 0
    barriers: int = 0
    cycles: dict[str, float] = field(default_factory=dict)  # pipe: cycles of a sub-partition
    waits: list[Wait] = field(default_factory=list)


@dataclass(frozen=True)
class Code:
    """Disassembled kernel."""

    instructions: list[Instruction]
    labels: dict[str, int]
    registers: int
    shared: int  # bytes of a program

    @property
    def resident(self) -> int:
        """Programs that a multiprocessor holds: 65536 registers in units of 256 a warp, 64 warps, 227 KB shared."""
        per_warp = -(-self.registers * 32 // 256) * 256
        by_registers = (65536 // 4 // per_warp) * 4 // WARPS  # each sub-partition has its own quarter
        return min(by_registers, 64 // WARPS, 227 * 1024 // (self.shared + 1024))


def disassemble(compiled: Any) -> Code:
    """Disassemble a compiled kernel with Triton's copies of NVIDIA's tools."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        text = _run([triton.knobs.nvidia.nvdisasm.path, "-g", "-c", str(path)])
        usage = _run([triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(path)])
    registers = re.search(r"\bREG:(\d+)", usage)
    assert registers is not None
    text = re.split(r"\.text\._\w+:", text)[1].split("//----", 1)[0]
    instructions, labels, line = list[Instruction](), dict[str, int](), 0
    for row in text.splitlines():
        if place := re.match(r'\s*//## File "([^"]*)", line (\d+)', row):
            line = int(place[2]) if Path(place[1]).name == Path(str(chunks.__file__)).name else 0
        elif label := re.match(r"\s*(\.L\w+):", row):
            labels[label[1]] = len(instructions)
        elif found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(@!?U?P\w+ )?([A-Z][\w.]*)\s*([^;]*);", row):
            guard, name, operands = found.groups()
            if not name.startswith("NOP"):
                instructions.append(_parse(name, operands, guard, line))
    return Code(instructions, labels, int(registers[1]), compiled.metadata.shared)


def list_paths(code: Code) -> list[list[Instruction]]:
    """Ways through the code, from the shortest to the longest: one, unless programs may skip some of it."""
    found, open_ = [], [(0, list[Instruction]())]
    while open_:
        place, path = open_.pop()
        while True:
            one = code.instructions[place]
            path.append(one)
            if one.base == "EXIT" and not one.guarded:
                found.append(path)
                break
            place += 1
            if one.base == "BRA":
                target = code.labels[one.target]
                if target < place:  # the endless loop behind the code
                    break
                if one.guarded:
                    open_.append((target, list(path)))
                else:
                    place = target
    return sorted(found, key=len)


def count_cost(path: Iterable[Instruction], pixel_lines: set[int]) -> Cost:
    """Add up the cost of one way through the code."""
    path = list(path)
    cycles: collections.Counter[str] = collections.Counter()
    for one in path:
        pipe = _pipe(one)
        if pipe == "IMAD":
            cycles[pipe] += 4 if ".WIDE" in one.name or ".HI" in one.name else 2
        elif pipe:
            cycles[pipe] += _CYCLES[pipe]
    imad, fp32 = cycles.pop("IMAD", 0), cycles.pop("FP32", 0)
    pipes = {"issue": len(path), "FMA": max(imad, (imad + fp32) / 2), **cycles}
    barriers = sum(one.base == "BAR" for one in path)
    return Cost(len(path), barriers, pipes, list_waits(path, pixel_lines))


def mix(costs: Iterable[tuple[float, Cost]]) -> Cost:
    """Mean of the costs of several ways, each with the share of programs that takes it; waits of the last."""
    total = Cost()
    for share, cost in costs:
        total.instructions += share * cost.instructions
        total.barriers = max(total.barriers, cost.barriers)
        for pipe, cycles in cost.cycles.items():
            total.cycles[pipe] = total.cycles.get(pipe, 0.0) + share * cycles
        total.waits = cost.waits
    return total


def list_waits(path: Iterable[Instruction], pixel_lines: set[int]) -> list[Wait]:
    """Waits of a warp, which issues in order: it waits where it first needs what a load has not brought yet."""
    waits = []
    flying: dict[str, int] = {}  # register: number of its load
    loads: list[tuple[bool, int]] = []
    arrived = 0
    for one in path:
        needed = [flying[name] for name in one.reads | one.writes if name in flying]
        if needed and max(needed) >= arrived:
            waiting = loads[arrived:]
            pixels = sum(width for pixel, width in waiting if pixel)
            waits.append(Wait(pixels, sum(not pixel for pixel, _ in waiting)))
            arrived, flying = len(loads), {}
        for name in one.writes:
            flying.pop(name, None)
        if one.base == "LDG":
            flying |= dict.fromkeys(one.writes, len(loads))
            loads.append(
                (one.line in pixel_lines or one.width >= 8, one.width)
            )  # a wide load's line may be off by some
    return waits


def list_pixel_lines() -> set[int]:
    """Lines of the kernel that load pixels."""
    source = Path(str(chunks.__file__)).read_text(encoding="utf-8")
    return {number for number, line in enumerate(source.splitlines(), 1) if PIXEL_LOAD.search(line)}


def _pipe(one: Instruction) -> str:
    assert one.base in _PIPE_OF or one.base.startswith("U"), f"which pipe does {one.name} use?"
    return _PIPE_OF.get(one.base, "uniform")


def _parse(name: str, operands: str, guard: str | None, line: int) -> Instruction:
    parts = re.findall(r"desc\[[^\]]*\]\[[^\]]*\]|`\([^)]*\)|\[[^\]]*\]|[^,\s]+", operands)
    base = name.split(".")[0]
    target = next((part[2:-1] for part in parts if part.startswith("`(")), "") if base == "BRA" else ""
    carries = base in _CARRIES and bool(re.fullmatch(r"U?P\d", (*parts, "", "")[1]))
    results = 0 if base in _NO_RESULT else 2 if base in _TWO_RESULTS or carries else 1
    into, rest = parts[:results], parts[results:]
    pipe = _PIPE_OF.get(base)
    span = 2 if "WIDE" in name or ".64" in name or pipe == "FP64" else 1
    if pipe == "LSU":
        span = max(1, Instruction(name, frozenset(), frozenset(), 0, guarded=False).width // 4)
    writes = {register for part in into for register in _registers(part, span)}
    reads = set(re.findall(r"U?P\d", guard or ""))
    for place, part in enumerate(rest):
        last = place == len(rest) - 1
        data = base in ("STG", "STS", "STL", "STSM") and last
        wide = ".64" in part or pipe == "FP64" or ("WIDE" in name and last)
        reads |= _registers(part, span if data else 1 + wide)
    return Instruction(name, frozenset(reads), frozenset(writes), line, guard is not None, target)


def _registers(text: str, span: int) -> set[str]:
    found = set(re.findall(r"\bU?P\d\b", text))
    for uniform, number in re.findall(r"\b(U?)R(\d+)", text):
        found |= {f"{uniform}R{int(number) + k}" for k in range(2 if uniform else span)}
    return found


def _run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
