"""Execution of compiled PTX on a CPU: every program and thread of a launch at once, as numpy arrays.

It checks what Triton's interpreter cannot, because that one runs the Python source and not what was compiled:

- every access lies inside a tensor that was passed, and is aligned to its own width: whether the hints that widened it,
  ``tl.multiple_of`` and the 16-fold arguments, are true for this launch;
- every byte of the output is written, by one thread, once;
- a register that is read before it is written holds a pattern that would be seen in the result;
- 32-bit arithmetic wraps as the machine's does.

The kernel has no atomics, and no branches but forward ones that all threads of a program take together; an instruction
that is not known here is an error. All threads execute one instruction before any executes the next, so a
missing barrier is not seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from tests.helpers.ptx import arithmetic
from tests.helpers.ptx.code import Address, Instruction, Operand, Program
from tests.helpers.ptx.memory import Array, Fault, Memory

SHARED_BYTES = 48 * 1024  # of a program, at most
UNWRITTEN = 0xA5A5A5A5A5A5A5A5  # in a register before it is written
_CLASSES = {"p": np.bool_, "rs": np.uint16, "r": np.uint32, "rd": np.uint64}


@dataclass
class Access:
    """One access of all threads to global memory: arrays are ``[programs, threads]``."""

    instruction: Instruction
    store: bool
    width: int  # bytes per thread
    address: Array
    mask: Array


@dataclass
class Machine:
    """All threads of some programs of a launch.

    Args:
        program: the parsed kernel.
        arguments: one number or tensor per parameter.
        memory: the bytes that may be touched.
        watch: is called with every access to global memory.
    """

    program: Program
    arguments: list[int | float | Tensor]
    memory: Memory
    watch: Callable[[Access], None] | None = None
    registers: dict[str, Array] = field(default_factory=dict)
    special: dict[str, Array] = field(default_factory=dict)
    shape: tuple[int, int] = (0, 0)
    active: Array = field(default_factory=lambda: np.ones(0, np.bool_))  # programs that execute the instruction

    def run(self, numbers: Array) -> None:
        """Run the programs of some numbers."""
        self.registers = {}
        self.special = {
            "%ctaid.x": numbers.astype(np.uint32)[:, None],
            "%tid.x": np.arange(self.program.threads, dtype=np.uint32)[None, :],
        }
        self.shape = (len(numbers), self.program.threads)
        self.shared = np.zeros((len(numbers), SHARED_BYTES), np.uint8)
        self.shared_written = np.zeros((len(numbers), SHARED_BYTES), np.bool_)
        resume = np.zeros(len(numbers), np.int64)  # the instruction at which each program goes on
        steps = np.zeros(len(numbers), np.int64)
        with np.errstate(all="ignore"):
            for number, instruction in enumerate(self.program.instructions):
                self.active = resume <= number
                if not self.active.any():
                    continue
                steps += self.active
                try:
                    if instruction.opcode[0] in ("bra", "ret"):
                        target = self._branch(instruction)
                        resume = np.where(self._uniform(instruction), target, resume)
                        assert target > number, f"{instruction}: jumps back"
                    else:
                        self._step(instruction)
                except KeyError as error:
                    raise Fault(f"{instruction}: {error} is not known, or not written yet") from error
        self.memory.steps += steps.tolist()

    def _branch(self, instruction: Instruction) -> int:
        """Number of the instruction that a branch leads to."""
        if instruction.opcode[0] == "ret":
            return len(self.program.instructions)
        return self.program.labels[_name(instruction.operands[0])]

    def _uniform(self, instruction: Instruction) -> Array:
        """Guard of a branch, one for each active program: all its threads take it, or none."""
        guard = np.broadcast_to(self._guard(instruction), self.shape)
        if (guard.any(1) != guard.all(1))[self.active].any():
            raise Fault(f"{instruction}: threads of a program part")
        taken: Array = guard[:, 0] & self.active
        return taken

    def _step(self, instruction: Instruction) -> None:
        name, *suffix = instruction.opcode
        if name == "bar":
            return
        if name in ("ldmatrix", "stmatrix"):
            self._move_matrices(instruction, suffix)
        elif name in ("ld", "st") and suffix[0] == "shared":
            self._access_shared(instruction)
        elif name == "ld" and suffix[0] == "param":
            self._load_parameter(instruction)
        elif name in ("ld", "st"):
            self._access_global(instruction)
        elif name == "mov":
            self._move(instruction, suffix[-1])
        else:
            self._write(instruction, _name(instruction.operands[0]), self._compute(instruction, name, suffix))

    # Registers.

    def _read(self, operand: Operand, kind: str) -> Array:
        """An operand as numbers of a PTX type; bf16 as float32."""
        operand = _name(operand)
        if kind == "bf16":
            return arithmetic.from_bfloat(self._read(operand, "b16"))
        dtype = np.dtype(arithmetic.TYPES[kind])
        if operand.startswith("%"):
            value = self.special.get(operand, self.registers.get(operand))
            if value is None:
                value = np.full((1, 1), UNWRITTEN >> (64 - 8 * dtype.itemsize), f"u{dtype.itemsize}")
            if value.dtype == np.bool_ or value.dtype.itemsize == dtype.itemsize:
                return value.view(dtype)
            return value.astype(f"u{dtype.itemsize}").view(dtype)  # b8 of a 16-bit register: the lower part
        if operand[:2] in ("0f", "0F", "0d", "0D"):
            bits = np.array([[int(operand[2:], 16)]], "u4" if operand[1] in "fF" else "u8")
            return bits.view(f"f{bits.dtype.itemsize}").view(dtype)
        number = 0 if operand == "global_smem" else int(operand.rstrip("U"), 0)
        if kind == "pred":
            return np.array([[number != 0]])
        return np.array([[number % 2 ** (8 * dtype.itemsize)]], f"u{dtype.itemsize}").view(dtype)

    def _write(self, instruction: Instruction, register: str, value: Array) -> None:
        if register == "_":
            return
        kind = re.fullmatch(r"%(p|rs|rd|r)\d+", register)
        assert kind is not None
        dtype = np.dtype(_CLASSES[kind[1]])
        if dtype != np.bool_:
            value = np.ascontiguousarray(value)
            value = value.view(f"u{value.dtype.itemsize}").astype(dtype)
        if instruction.guard is not None:
            value = np.where(self._guard(instruction), value, self.registers[register])
        if not self.active.all():
            before = self.registers.get(register, np.zeros((1, 1), dtype))
            value = np.where(self.active[:, None], value, before)
        self.registers[register] = value

    def _guard(self, instruction: Instruction) -> Array:
        if instruction.guard is None:
            return np.ones((1, 1), np.bool_)
        name, negated = instruction.guard
        return ~self.registers[name] if negated else self.registers[name]

    # Memory.

    def _load_parameter(self, instruction: Instruction) -> None:
        register, place = _name(instruction.operands[0]), _address(instruction.operands[1])
        value = self.arguments[int(place.base.rsplit("_", 1)[1])]
        number = value.data_ptr() if isinstance(value, Tensor) else int(value)
        kind = instruction.opcode[-1]
        size = np.dtype(arithmetic.TYPES[kind]).itemsize
        array = np.array([[number % 2 ** (8 * size)]], f"u{size}")
        if register.startswith("%rd") and size == 4:  # widened, as the type says
            array = (array.view("i4").astype("i8") if kind[0] == "s" else array.astype("u8")).view("u8")
        self._write(instruction, register, array)

    def _open(self, instruction: Instruction, kind: str) -> tuple[Array, Array, tuple[str, ...], int]:
        """Addresses and mask of all threads, the registers that hold the values, and bytes of each."""
        store = instruction.opcode[0].startswith("st")
        where, what = instruction.operands if store else instruction.operands[::-1]
        base, offset = _address(where)
        names = (what,) if isinstance(what, str) else tuple(map(str, what))
        address = self._read(base, kind).astype(np.int64) + offset
        mask = np.broadcast_to(self._guard(instruction) & self.active[:, None], self.shape)
        unit = np.dtype(arithmetic.TYPES.get(instruction.opcode[-1], np.uint16)).itemsize
        return np.broadcast_to(address, self.shape), mask, names, unit

    def _values(self, names: tuple[str, ...], unit: int, mask: Array) -> list[Array]:
        return [np.broadcast_to(self._read(name, f"b{8 * unit}"), self.shape)[mask] for name in names]

    def _access_global(self, instruction: Instruction) -> None:
        address, mask, names, unit = self._open(instruction, "u64")
        store = instruction.opcode[0] == "st"
        if self.watch is not None:
            self.watch(Access(instruction, store, instruction.vector * unit, address, mask))
        if store:
            self.memory.store(address[mask], self._values(names, unit, mask), unit, instruction)
            return
        for name, got in zip(names, self.memory.load(address[mask], len(names), unit, instruction), strict=True):
            full = np.zeros(self.shape, got.dtype)
            full[mask] = got
            self._write(instruction, name, full)

    def _access_shared(self, instruction: Instruction) -> None:
        """Access shared memory, ``[programs, bytes]``; Fault if what is read was never written."""
        address, mask, names, unit = self._open(instruction, "u32")
        if (address[mask] % (len(names) * unit)).any():
            raise Fault(f"{instruction}: misaligned address in shared memory")
        program = np.broadcast_to(np.arange(self.shape[0])[:, None], self.shape)[mask][:, None]
        for k, name in enumerate(names):
            place = address[mask][:, None] + k * unit + np.arange(unit)
            if instruction.opcode[0] == "st":
                [value] = self._values((name,), unit, mask)
                self.shared[program, place] = np.ascontiguousarray(value).view(np.uint8).reshape(-1, unit)
                self.shared_written[program, place] = True
                continue
            if not self.shared_written[program, place].all():
                raise Fault(f"{instruction}: reads shared memory that was never written")
            full = np.zeros(self.shape, f"u{unit}")
            full[mask] = np.ascontiguousarray(self.shared[program, place]).view(f"u{unit}")[:, 0]
            self._write(instruction, name, full)

    def _move_matrices(self, instruction: Instruction, suffix: list[str]) -> None:
        """8x8 matrices of 16 bits: lane 8 * i + r gives the address of row r of matrix i; register i holds two."""
        store = instruction.opcode[0] == "stmatrix"
        flat, _, names, _ = self._open(instruction, "u32")
        warps = (self.shape[0], self.shape[1] // 32, 32)
        address, lane, program = flat.reshape(warps), np.arange(32), np.arange(self.shape[0])[:, None, None]
        for matrix, name in enumerate(names):
            rows = address[..., 8 * matrix : 8 * matrix + 8]
            if (rows % 16).any():
                raise Fault(f"{instruction}: misaligned row of a matrix")
            value = np.zeros(warps, np.uint32)
            if store:
                value = np.broadcast_to(self._read(name, "b32"), self.shape).reshape(warps)
            for half in (0, 1):
                place = rows[..., lane // 4] + 4 * (lane % 4) + 2 * half
                if "trans" in suffix:
                    place = rows[..., 2 * (lane % 4) + half] + 2 * (lane // 4)
                for byte in (0, 1):
                    bits = np.uint32(16 * half + 8 * byte)
                    if store:
                        self.shared[program, place + byte] = (value >> bits).astype(np.uint8)
                        self.shared_written[program, place + byte] = True
                    elif not self.shared_written[program, place + byte].all():
                        raise Fault(f"{instruction}: reads shared memory that was never written")
                    else:
                        value = value | self.shared[program, place + byte].astype(np.uint32) << bits
            if not store:
                self._write(instruction, name, value.reshape(self.shape))

    # Arithmetic.

    def _move(self, instruction: Instruction, kind: str) -> None:
        into, source = instruction.operands
        bits = 8 * np.dtype(arithmetic.TYPES[kind]).itemsize
        if isinstance(into, tuple):
            part, whole = bits // len(into), self._read(source, kind)
            for place, name in enumerate(into):
                self._write(instruction, str(name), (whole >> (place * part)).astype(f"u{part // 8}"))
        elif isinstance(source, tuple):
            part, whole = bits // len(source), np.zeros((1, 1), f"u{bits // 8}")
            for place, name in enumerate(source):
                word = self._read(str(name), f"b{part}").astype(whole.dtype)
                whole = whole | (word << (place * part)).astype(whole.dtype)
            self._write(instruction, into, whole)
        else:
            self._write(instruction, into, self._read(source, kind))

    def _compute(self, instruction: Instruction, name: str, suffix: list[str]) -> Array:
        kind, operands = suffix[-1], instruction.operands[1:]
        if name == "cvt":
            return arithmetic.convert([self._read(operand, kind) for operand in operands], suffix)
        if name == "selp":
            first, second, predicate = operands
            return np.where(self._read(predicate, "pred"), self._read(first, kind), self._read(second, kind))
        if name in ("shl", "shr"):
            amount = self._read(operands[1], "u32")
            return arithmetic.shift(self._read(operands[0], kind), amount, left=name == "shl")
        if name == "bfe":
            return arithmetic.extract(self._read(operands[0], kind), *(int(_name(word)) for word in operands[1:]))
        if name == "prmt":
            return arithmetic.permute(*(self._read(operand, "b32") for operand in operands))
        if name == "lop3":
            table = int(_name(operands[3]), 0)
            return arithmetic.lookup(table, [self._read(operand, "b32") for operand in operands[:3]])
        if kind in ("bf16", "bf16x2", "f16x2", "s16x2", "u16x2"):
            return self._compute_halves(name, kind, operands)
        if name in ("mul", "mad") and suffix[0] in ("lo", "hi", "wide"):
            return self._multiply(suffix[0], kind, operands)
        values = [self._read(operand, kind) for operand in operands]
        if name == "setp":
            return arithmetic.COMPARE[suffix[0]](*values)
        if name == "div":
            return values[0] / values[1] if kind[0] == "f" else arithmetic.divide(*values)
        if name == "rem":
            return arithmetic.remainder(*values)
        if name == "not":
            return ~values[0]
        if name == "neg":
            return -values[0] if kind[0] == "f" else (0 - values[0]).astype(values[0].dtype)
        if name == "abs":
            return np.abs(values[0])
        return arithmetic.BINARY[name](*values)

    def _compute_halves(self, name: str, kind: str, operands: tuple[Operand, ...]) -> Array:
        """Arithmetic of bf16, or of pairs of 16-bit numbers in one register, rounded once."""
        if kind == "bf16":
            return arithmetic.to_bfloat(arithmetic.BINARY[name](*(self._read(word, kind) for word in operands)))
        words, halves = [self._read(operand, "b32") for operand in operands], []
        for bits in (0, 16):
            parts = [np.ascontiguousarray(word >> np.uint32(bits)).astype(np.uint16) for word in words]
            if kind == "bf16x2":
                half = arithmetic.to_bfloat(arithmetic.BINARY[name](*map(arithmetic.from_bfloat, parts)))
            else:
                dtype = arithmetic.TYPES[kind.removesuffix("x2")]
                half = arithmetic.BINARY[name](*(part.view(dtype) for part in parts)).view(np.uint16)
            halves.append(half.astype(np.uint32))
        return halves[0] | (halves[1] << np.uint32(16))

    def _multiply(self, part: str, kind: str, operands: tuple[Operand, ...]) -> Array:
        first, second = (self._read(operand, kind) for operand in operands[:2])
        product, size = first * second, first.dtype.itemsize
        if part != "lo":
            wide = np.dtype(f"{first.dtype.kind}{2 * size}")
            product = first.astype(wide) * second.astype(wide)
            if part == "hi":
                product = (product >> (8 * size)).astype(first.dtype)
        if len(operands) == 3:
            product = product + self._read(operands[2], f"{kind[0]}{8 * product.dtype.itemsize}")
        return product


def _name(operand: Operand) -> str:
    assert isinstance(operand, str)
    return operand


def _address(operand: Operand) -> Address:
    assert isinstance(operand, Address)
    return operand
