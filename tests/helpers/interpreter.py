"""Triton's interpreter on a CPU, mended where it differs from a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
