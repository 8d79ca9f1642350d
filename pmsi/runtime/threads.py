"""Threads of torch on a CPU: set, or measured on the machine as busy as it is."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from pmsi.runtime.cores import count_workers

_SECONDS = 0.05  # of each try
_ROUNDS = 2
_GAIN = 1.25  # fewer threads are named where they are so many times as fast


def set_threads(asked: int | None) -> str | None:
    """Set torch's threads where a number was asked for, else measure whether fewer would be faster.

    Where others compute, threads that wait for each other at the end of every operation wait for a turn of the system.
    Two threads on two busy cores have trained 3 to 8 times as slowly as one.

    Args:
        asked: number of threads; None leaves torch's own choice.

    Returns:
        One line of advice, if fewer threads are faster now; None if not.

    Raises:
        ValueError: ``asked`` is below 1.
    """
    if asked is not None:
        if asked < 1:
            raise ValueError(f"--threads: must be 1 or above, got {asked}")
        torch.set_num_threads(asked)
        return None
    now = torch.get_num_threads()
    if now == 1:
        return None
    counts = {now, min(now, count_workers())}
    while min(counts) > 1:
        counts.add(min(counts) // 2)
    speeds = measure_speeds(sorted(counts))
    best = max(speeds, key=lambda count: speeds[count])
    gain = speeds[best] / speeds[now]
    if gain < _GAIN:
        return None
    return (
        f"this machine is busy, or allows fewer cores than it has: torch computes {gain:.1f} times as fast with {best}"
        f" thread{'s' if best > 1 else ''} as with its {now}; --threads {best} sets that"
    )


def measure_speeds(counts: Sequence[int]) -> dict[int, float]:
    """Measure a small convolution with each number of threads, in calls a second; the number is as before after."""
    before = torch.get_num_threads()
    images, weights = torch.ones(2 * max(counts), 64, 28, 28), torch.ones(64, 64, 3, 3)  # enough for every thread
    calls, seconds = dict.fromkeys(counts, 0), dict.fromkeys(counts, 0.0)
    try:
        with torch.inference_mode():
            for count in [*counts] * _ROUNDS:  # in turn, so that a load that comes and goes meets all
                torch.set_num_threads(count)
                torch.conv2d(images, weights, padding=1)  # starts the threads
                start = time.perf_counter()
                while (passed := time.perf_counter() - start) < _SECONDS:
                    torch.conv2d(images, weights, padding=1)
                    calls[count] += 1
                seconds[count] += passed
    finally:
        torch.set_num_threads(before)
    return {count: calls[count] / seconds[count] for count in counts}
