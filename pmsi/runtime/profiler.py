"""Profile of training steps: time by part and by operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from rich.table import Table
from torch.profiler import ProfilerActivity, profile, schedule

from pmsi.runtime.files import expand_home

_WARM_UP, _MEASURED = 2, 4  # mini-batches
_OPERATORS = 12  # of the table


class Profile:
    """Profile of a few mini-batches with torch's profiler, after a warm-up.

    Args:
        file: gets the trace, for chrome://tracing or ui.perfetto.dev.
        device: that the run computes on.
    """

    def __init__(self, file: Path, device: torch.device) -> None:
        self.file, self.device = expand_home(file), device
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        plan = schedule(wait=0, warmup=_WARM_UP, active=_MEASURED, repeat=1)
        self.profiler = profile(activities=activities, schedule=plan, on_trace_ready=self._export)
        self.events: list[Any] = []

    def __enter__(self) -> Self:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.profiler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.profiler.stop()

    def step(self) -> None:
        """Mark the end of a mini-batch."""
        self.profiler.step()

    def make_table(self) -> Table:
        """Make a table of the parts of a step, then of the slowest operators; on a GPU, of the GPU's time."""
        table = Table("part", "ms a mini-batch", "share, %", "calls", title="Where the time of a step goes")
        parts = [event for event in self.events if event.key.startswith("pmsi: ")]
        whole = sum(map(self._time, parts))
        operators = sorted((e for e in self.events if not e.key.startswith(("pmsi: ", "ProfilerStep"))), key=self._own)
        for event in parts:
            self._add(table, event.key[6:], self._time(event), whole, event.count)
        table.add_section()
        for event in operators[: -_OPERATORS - 1 : -1]:
            self._add(table, event.key, self._own(event), whole, event.count)
        return table

    def _add(self, table: Table, name: str, time: float, whole: float, count: int) -> None:
        share = 100 * time / max(whole, 1e-9)
        table.add_row(name, f"{time / 1000 / _MEASURED:.2f}", f"{share:.1f}", f"{count / _MEASURED:.0f}")

    def _time(self, event: Any) -> float:  # microseconds
        return float(event.device_time_total if self.device.type == "cuda" else event.cpu_time_total)

    def _own(self, event: Any) -> float:
        return float(event.self_device_time_total if self.device.type == "cuda" else event.self_cpu_time_total)

    def _export(self, profiler: Any) -> None:
        self.events = list(profiler.key_averages())
        profiler.export_chrome_trace(str(self.file))
