"""Clocks, numbers of rounds, and peak memory of a timed call."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

Run = Callable[[], Any]  # one call of a side; what it returns holds the images


BUDGET = 0.4  # seconds for all rounds of one side, unless the fewest rounds take longer
SLOW = 0.5  # seconds of a call from which three rounds must do, and not seven
ROUND = 0.002  # seconds of a round at the least: shorter calls are repeated within it


class Rounds(NamedTuple):
    """Arguments of pytest-benchmark's `benchmark.pedantic`."""

    rounds: int
    iterations: int
    warmup_rounds: int


def make_clock(device: str) -> Callable[[], float]:
    """Clock in seconds; on a GPU it synchronises first, so that queued kernels are counted."""
    if device == "cpu":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def plan_rounds(run: Run, clock: Callable[[], float]) -> Rounds:
    """Numbers of rounds and of calls per round within `BUDGET`, from the time of up to three calls."""
    run()
    calls, start = 0, clock()
    while calls < 3 and clock() - start < BUDGET / 2:
        run()
        calls += 1
    seconds = max((clock() - start) / calls, 1e-6)
    iterations = min(100, math.ceil(ROUND / seconds))
    rounds = max(3 if seconds > SLOW else 7, min(50, int(BUDGET / (iterations * seconds))))
    return Rounds(rounds, iterations, warmup_rounds=3 if calls == 3 else 0)


def measure_peak(run: Callable[[], Tensor], device: str, *, fresh: bool) -> int:
    """Peak memory of a call in bytes, beyond its input and output, as counted by torch's allocator.

    Args:
        run: returns the images.
        fresh: whether the call allocates these images, so that they are left out.
    """
    run()
    if device == "cpu":
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            images = run()
        peak = _read_peak(profiler)
    else:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        images = run()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
    return max(0, peak - images.untyped_storage().nbytes() * fresh)


def _read_peak(profiler: Any) -> int:
    """Highest running sum of the CPU allocator's allocations and frees, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    memory = [event for event in events if event.get("name") == "[memory]" and event["args"]["Device Type"] == 0]
    held = peak = 0
    for event in sorted(memory, key=lambda event: float(event["ts"])):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak
