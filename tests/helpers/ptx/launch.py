"""Launches of the kernel compiled for a GPU that need not be there, and executed by `Machine`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mosaicaug.backends.request import Request
from mosaicaug.backends.triton import kernel as backend
from mosaicaug.backends.triton.launch import Launch
from mosaicaug.backends.triton.table import Table
from tests.helpers.ptx.code import Program, parse
from tests.helpers.ptx.machine import Access, Machine
from tests.helpers.ptx.memory import Array, Memory

AT_ONCE = 512  # programs
POINTERS = {
    torch.uint8: "*u8",
    torch.int16: "*i16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
}

Constants = dict[tuple[int], Any]


def specialise(arguments: dict[str, Any], kernel: Any) -> tuple[dict[str, str], Constants, Constants]:
    """Signature, constants and attributes of a launch, as Triton's launcher reads them from arguments.

    Addresses and numbers that are multiples of 16 are told to the compiler; ones and None are compiled in. The
    addresses are those of tensors on the CPU.
    """
    signature, constants, attributes = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        name, value = parameter.name, arguments[parameter.name]
        specialised = not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or (specialised and isinstance(value, int) and value == 1):
            signature[name], constants[(place,)] = "constexpr", value
            continue
        if isinstance(value, Tensor):
            signature[name], divisible = POINTERS[value.dtype], value.data_ptr() % 16 == 0
        else:
            signature[name], divisible = "i32" if -(2**31) <= value < 2**31 else "i64", value % 16 == 0
        if divisible and specialised:
            attributes[(place,)] = [["tt.divisibility", 16]]
    return signature, constants, attributes


def compile_launch(arguments: dict[str, Any], architecture: int, module: Any = backend) -> Any:
    """Compile the kernel of a module for the arguments of a launch."""
    kernel = module._apply_plan_kernel
    signature, constants, attributes = specialise(arguments, kernel)
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=module.OPTIONS)


@lru_cache(maxsize=4)
def parse_once(text: str) -> Program:
    """Parse PTX, and keep the last few."""
    return parse(text)


def execute(
    launch: Launch,
    compiled: Any,
    *,
    module: Any = backend,
    numbers: Array | None = None,
    watch: Callable[[Access], None] | None = None,
) -> Memory:
    """Execute a compiled launch, or the programs numbered ``numbers`` of it; returns the memory that it touched.

    Raises:
        Fault: an access would be an error on a GPU, or bytes of the output are not written once.
    """
    [programs], arguments = launch
    signature, _, _ = specialise(arguments, module._apply_plan_kernel)
    values = [arguments[name] for name, kind in signature.items() if kind != "constexpr"]
    program = parse_once(compiled.asm["ptx"])
    values += [0] * (len(program.parameters) - len(values))  # Triton's pointers to scratch memory
    tensors = [value for value in arguments.values() if isinstance(value, Tensor)]
    memory = Memory(tensors, arguments["out_ptr"])
    machine = Machine(program, values, memory, watch)
    chosen = np.arange(programs) if numbers is None else numbers
    for begin in range(0, len(chosen), AT_ONCE):
        some = chosen[begin : begin + AT_ONCE]
        machine.run(some)
    if numbers is None:
        memory.check_complete()
    return memory


def run(
    images: Tensor, table: Table, request: Request, out: Tensor | None, *, architecture: int, module: Any = backend
) -> Tensor:
    """Carry out plans as the backend's `run` does, by executing what was compiled for an architecture."""
    if out is None:
        out = request.make_output((table.outputs, *images.shape[1:-2], *table.size), images.device)
    if out.numel() == 0:
        return out
    launch = module.typed_arguments(images, table, request, out)
    execute(launch, compile_launch(launch[1], architecture, module), module=module)
    return out


def load_module(name: str, source: str, folder: Path) -> ModuleType:
    """Module from source text in a file of ``folder``, from which Triton reads the functions that it compiles."""
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
