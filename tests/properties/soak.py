"""Soak: random cases of every property for some minutes, on all cores; `make soak MINUTES=n`.

What fails is reduced to its smallest case and kept in ``tests/properties/failures``, which the tests try again. Counts
go to ``bench/results``. Ctrl-C ends it early.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when kernels are defined

from bench import results
from bench.results import Row
from pmsi.runtime.cores import count_cores
from tests.properties import large, pixels, registry
from tests.properties.registry import FAILURES, SHARES, Failure

COUNTED = (
    "A plan is one output image with tiles, boxes, partner, opacity, crop and flip of its own; a call of apply carries "
    "out a batch of them. Rows of kind backend count the plans whose pixels a backend made and the oracle checked (the "
    "same plans for each backend), those of kind property the plans of all other checks; plans is the count of the "
    "backend with most."
)
ROUND = {"kernel": 6, "pixels of larger images": 20}  # cases of a property at a time; 100 of the others
_stop: Event | None = None  # of the processes of a pool
TELL = 120  # seconds between two lines of progress


class Share(NamedTuple):
    """Work of one process: when it ends, its seed, and where failures go."""

    until: float
    seed: int
    folder: Path


def main(words: list[str] | None = None) -> int:
    """Run a soak and write its results; the exit code is 0 if nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**31)
    parser.add_argument("--jobs", type=int, default=count_cores())
    parser.add_argument("--out", type=Path, help="file of results; by default in bench/results")
    parser.add_argument("--failures", type=Path, default=FAILURES, help="folder for cases that fail")
    parser.add_argument("--no-large", action="store_true", help="leave the largest sizes out")
    chosen = parser.parse_args(words)
    # 1. The largest sizes once, then random cases until the time is over.
    print(f"soak: {chosen.minutes:g} minutes, seed {chosen.seed}, {chosen.jobs} processes", flush=True)
    found = [] if chosen.no_large else large.run()
    start = time.time()
    shares = [
        Share(start + 60 * chosen.minutes, chosen.seed * 1000 + job, chosen.failures) for job in range(chosen.jobs)
    ]
    done = [work(shares[0])] if chosen.jobs == 1 else work_in_processes(shares)
    # 2. Add up and write.
    report = summarise(done, found, minutes=(time.time() - start) / 60, seed=chosen.seed)
    path = chosen.out or results.results_path("soak", report)
    results.write_results(path, {name: value for name, value in report.items() if name != "rows"}, report["rows"])
    print(f"soak: {report['plans']:,} plans, {len(report['failures'])} failures; {path} is written")
    return int(bool(report["failures"]))


def work_in_processes(shares: list[Share]) -> list[Row]:
    """Work in a process for each share; Ctrl-C ends the soak early, and what was done until then counts."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(len(shares), mp_context=context, initializer=_watch, initargs=(stop,)) as pool:
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # processes start now, and leave Ctrl-C to this one
        waiting = [pool.submit(work, share) for share in shares]
        signal.signal(signal.SIGINT, handler)
        try:
            wait(waiting)
        except KeyboardInterrupt:
            print("soak: stops after this round", flush=True)
            stop.set()
        return [one.result() for one in waiting]


def _watch(stop: Event) -> None:
    """Stop when the first process says so."""
    global _stop  # noqa: PLW0603 - a pool passes an event to its initializer alone
    _stop = stop


def work(share: Share) -> Row:
    """Search for failures until the time is over, every property in proportion to its share."""
    torch.set_num_threads(1)
    for counter in (registry.tried, pixels.tried, pixels.calls, pixels.largest):
        counter.clear()
    spent, failures = dict.fromkeys(SHARES, 0.0), list[Failure]()
    known: set[tuple[str, str]] = set()
    number, told = 0, time.time()
    while time.time() < share.until and not (_stop and _stop.is_set()):
        name = min(SHARES, key=lambda prop: spent[prop] / SHARES[prop])
        examples, begin = ROUND.get(name, 100), time.time()
        for failure in registry.search(name, examples, (share.seed * 1_000_003 + number) % 2**63):
            if (name, failure.error) not in known:
                known.add((name, failure.error))
                failures.append(failure)
                print(f"soak: {failure.error} -> {registry.keep(failure, share.folder)}", flush=True)
        spent[name] += time.time() - begin
        number += 1
        if time.time() - told > TELL:
            told = time.time()
            print(f"soak: process {os.getpid()}: {pixels.tried['cpu']:,} plans", flush=True)
    return {
        "cases": dict(registry.tried),
        "plans": dict(pixels.tried),
        "calls": dict(pixels.calls),
        "failures": [failure._asdict() for failure in failures],
        "largest": dict(pixels.largest),
    }


def summarise(done: list[Row], large_sizes: list[Row], *, minutes: float, seed: int) -> Row:
    """Add up what all processes did."""
    total: dict[str, Counter[str]] = {kind: Counter() for kind in ("cases", "plans", "calls")}
    for part in done:
        for kind, counts in total.items():
            counts.update(part[kind])
    backends, calls = pixels.list_backends(), total["calls"]
    rows: list[Row] = [
        {"kind": "backend" if name in backends else "property", "name": name, "plans": count, "calls": calls[name]}
        for name, count in sorted(total["plans"].items(), key=lambda item: -item[1])
    ]
    rows += [{"kind": "large", **size} for size in large_sizes]
    failures = [failure for part in done for failure in part["failures"]]
    failures += [size for size in large_sizes if size["status"] != "passed"]
    sizes = [*large_sizes, *(part["largest"] for part in done)]
    return {
        **results.describe_environment("cuda" if torch.cuda.is_available() else "cpu"),
        "counted": COUNTED,
        "minutes": round(minutes, 1),
        "processes": len(done),
        "seed": seed,
        "plans": max((total["plans"][name] for name in backends), default=0),
        "cases": dict(sorted(total["cases"].items())),
        "largest": {name: max((size.get(name, 0) for size in sizes), default=0) for name in ("elements", "batch")},
        "failures": failures,
        "rows": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
