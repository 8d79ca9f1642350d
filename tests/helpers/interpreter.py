"""Triton's interpreter on a CPU: its rounding mended where it differs from a GPU, and its wasted work left out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch


def round_to_bfloat16(convert: Callable[..., Any]) -> Callable[..., Any]:
    """Make the interpreter's conversion round float32 to bfloat16 to nearest, as GPUs do; it cuts off."""

    def convert_rounding(values: Any, source: Any, target: Any, mode: Any) -> Any:
        if (source.name, target.name) != ("fp32", "bf16"):
            return convert(values, source, target, mode)
        rounded = torch.from_numpy(np.ascontiguousarray(values)).bfloat16()
        return rounded.view(torch.int16).numpy().view(np.uint16)

    return convert_rounding


@contextlib.contextmanager
def leave_out_waste() -> Iterator[None]:
    """Triton's interpreter without work that changes no result, 60 % of its time.

    It patches `triton.language` anew at every call of a device function, a hundred times a launch: here once. And it
    computes for each integer operation whether it overflows, for an assertion that only its debug mode makes.
    """
    from triton.runtime import interpreter

    patch, scopes = interpreter._patch_lang, dict[int, Any]()

    def patch_once(function: Any) -> Any:
        module = id(function.__globals__)
        if module not in scopes:
            scopes[module] = patch(function)
        return interpreter._LangPatchScope()  # empty: a launch that ends restores nothing

    builder = interpreter.interpreter_builder
    assert not builder.options.debug, "the interpreter's assertions are wanted"
    options = dataclasses.replace(builder.options, sanitize_overflow=False)
    with mock.patch.object(interpreter, "_patch_lang", patch_once), mock.patch.object(builder, "options", options):
        try:
            yield
        finally:
            for scope in reversed(scopes.values()):
                scope.restore()
