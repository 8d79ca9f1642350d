"""Host time of an augmentation on a GPU, without a GPU: `python -m bench.host` writes bench/results/host.json.

A driver that launches nothing takes the place of CUDA's (see `bench.gpu.stub_driver`), so what is counted is the
CPU time of drawing, packing and launching; pinning, the upload and the driver's own launch are left out. Sides take
turns, and figures are minima: other processes only add to them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.gpu.stub_driver import FOLDER as STUBBED
from bench.gpu.stub_driver import run_stubbed, use_stub
from bench.results import FOLDER, ROOT, describe_environment, write_results
from mosaicaug import Augmentation, CutMix, Jigsaw, MixUp, RecursiveMosaic, SnapMix, apply
from mosaicaug.backends.triton.table import make_buffers, pack

PATH = FOLDER / "host.json"
SHAPE = (32, 3, 448, 448)
BAR = 100  # us for a draw and its launch
AHEAD = 16  # steps of a stream that are drawn at once
TIMED = 400  # calls of each part

Row = dict[str, Any]


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counter of the operations that torch dispatches."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def measure_row(aug: Augmentation, timed: int = TIMED) -> Row:
    """CPU time, us, and torch's operations of each part of a step with one augmentation."""
    images, out = torch.zeros(SHAPE), torch.empty(SHAPE)
    plan = aug.sample(SHAPE)
    [buffer] = make_buffers([plan], torch.device("cpu"))
    parts: dict[str, Callable[[], object]] = {
        "draw": lambda: aug.sample(SHAPE),
        "pack": lambda: pack([plan]),
        "apply": lambda: apply(images, plan, out=out, backend="triton"),
        "draw_and_apply": lambda: apply(images, aug.sample(SHAPE), out=out, backend="triton"),
        "stream_step": lambda: apply(images, buffer, out=out, backend="triton"),
        "stream_ahead": lambda: make_buffers([aug.sample(SHAPE) for _ in range(AHEAD)], torch.device("cpu")),
    }
    best = dict.fromkeys(parts, float("inf"))
    operations = {}
    for name, call in parts.items():
        call()
        with Operations() as counted:  # type: ignore[no-untyped-call]
            call()
        operations[name] = counted.count
    for turn in range(timed):
        for name, call in parts.items():
            if name == "stream_ahead" and turn % 8:
                continue
            start = time.thread_time_ns()
            call()
            best[name] = min(best[name], (time.thread_time_ns() - start) / 1000)
    best["stream_ahead"] /= AHEAD
    operations["stream_ahead"] //= AHEAD
    name = {"RecursiveMosaic": "RMG, r=3", "Jigsaw": "jigsaw, n=8"}.get(aug.name, aug.name)
    return {"augmentation": name, "us": {part: round(us, 1) for part, us in best.items()}, "operations": operations}


def main() -> int:
    """Measure in a process with the stub, started if this is none; the exit code is 1 if nothing was launched."""
    if STUBBED not in os.environ:
        return run_stubbed("bench.host", sys.argv[1:]).returncode
    timed = int(sys.argv[1]) if len(sys.argv) > 1 else TIMED
    launches = use_stub()
    torch.set_num_threads(1)
    rows = []
    for aug in (RecursiveMosaic(3), Jigsaw(8), CutMix(), MixUp(), SnapMix()):
        rows.append(measure_row(aug, timed))
        print(rows[-1], flush=True)
    if timed == TIMED:
        write_results(PATH, describe_environment("cpu") | {"shape": SHAPE, "ahead": AHEAD, "bar": BAR}, rows)
        print(f"{PATH.relative_to(ROOT)} is written")
    return int(launches.value == 0)


if __name__ == "__main__":
    sys.exit(main())
