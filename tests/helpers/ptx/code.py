"""PTX as a list of instructions: parses what Triton compiled."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple


class Address(NamedTuple):
    """Operand in square brackets: a register, or the name of a parameter, and bytes added to it."""

    base: str
    offset: int


Operand = str | tuple[str, ...] | Address  # a register or number, several in braces, or an address


@dataclass(frozen=True)
class Instruction:
    """One instruction, with its line in the PTX and in the kernel's Python file."""

    line: int
    opcode: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: tuple[str, bool] | None  # predicate register, and True if it must be false
    python_line: int

    def __str__(self) -> str:
        return f"line {self.line} of the PTX, {self.python_line} of the kernel: {'.'.join(self.opcode)}"

    @property
    def vector(self) -> int:
        """Numbers that a load or store moves per thread."""
        return next((int(part[1:]) for part in self.opcode if re.fullmatch(r"v\d", part)), 1)


@dataclass(frozen=True)
class Program:
    """A kernel: types of its parameters, instructions, the first one behind each label, and threads of a program."""

    parameters: list[str]
    instructions: list[Instruction]
    labels: dict[str, int]
    threads: int


def parse(text: str) -> Program:
    """Parse the PTX of one kernel."""
    text = text.split(".section", 1)[0]
    parameters = re.findall(r"\.param \.(\w+)", text.split("{", 1)[0])
    threads = re.search(r"\.reqntid (\d+)", text)
    assert threads is not None
    instructions, labels, python_line = list[Instruction](), dict[str, int](), 0
    for number, row in enumerate(text.splitlines(), 1):
        line = row.split("//")[0].strip()
        if place := re.match(r"\.loc\s+\d+ (\d+)", line):
            python_line = int(place[1]) or python_line
        if line.startswith("$") and line.endswith(":"):
            labels[line[:-1]] = len(instructions)
        if not line.endswith(";") or line.startswith((".", "$")):
            continue
        guard = None
        if found := re.match(r"@(!?)(%p\d+)\s+", line):
            guard, line = (found[2], bool(found[1])), line[found.end() :]
        head, *rest = line.rstrip(";").split(None, 1)
        operands = tuple(map(_parse_operand, re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+", "".join(rest))))
        instructions.append(Instruction(number, tuple(head.split(".")), operands, guard, python_line))
    return Program(parameters, instructions, labels, int(threads[1]))


def _parse_operand(word: str) -> Operand:
    if word[0] == "{":
        return tuple(part.strip() for part in word[1:-1].split(","))
    if word[0] == "[":
        base, _, offset = word[1:-1].partition("+")
        return Address(base.strip(), int(offset or 0))
    return word
