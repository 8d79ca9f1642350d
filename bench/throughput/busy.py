"""CPU times, idle and beside busy loops: `python -m bench.throughput.busy [WORD ...]`.

Sides of a case take turns in every round, on the same batches and plans, and must make the same pixels before they are
timed. Beside `WORD`s, only cases whose names hold one of them are run, and the results are printed, not kept.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.measure import Run
from bench.results import FOLDER, Row, describe_environment, results_path, round_figure, write_results
from bench.throughput.batch import MEAN, STD, Batch, UnfitError, draw_index, make_batch
from bench.throughput.cases import Case, centre
from bench.throughput.rows import read_case
from bench.throughput.sides import make_run, ours
from bench.throughput.tables import TITLES
from mosaicaug import Plan, apply

SIZES = {32: 128, 224: 32, 448: 32}  # px: images of a batch
ROUNDS = {"idle": 7, "busy": 5}
SECONDS = 0.02  # of a side's calls in one round, at the least
SETS = 4  # of batch, plan and buffer, in turn: one batch of bytes would stay in the cache, as none does in training
TILES = ("rmg", "jigsaw", "cutmix")


def list_cases() -> list[Case]:
    """Cases of all augmentations, sizes and two dtypes; and the fused pipelines from stored uint8 images."""
    pipelines = [centre(name, task="pipeline") for name in TILES]
    return pipelines + [
        centre(name, batch=batch, size=size, dtype=dtype)
        for (size, batch), dtype, name in itertools.product(
            SIZES.items(), ("float32", "uint8"), (*TILES, "mixup", "snapmix")
        )
    ]


def make_sides(case: Case) -> dict[str, Run]:
    """Sides of a case by name, each on `SETS` batches in turn; DALI, whose threads read ahead, on one."""
    sets = [make_set(case, make_batch(case, "cpu")) for _ in range(SETS)]
    sides = {name: take_turns([one[name] for one in sets]) for name in sets[0]}
    with suppress(UnfitError):
        sides["dali"] = make_run(case, "dali", make_batch(case, "cpu"))
    return sides


def take_turns(runs: Sequence[Run]) -> Run:
    """Call of one after the other."""
    turns = itertools.cycle(runs)

    def run() -> Any:
        return next(turns)()

    return run


def make_set(case: Case, batch: Batch) -> dict[str, Run]:
    """Sides of a case on one batch and plan, by name.

    ``ours`` makes fresh images from a plan; ``ready`` writes them into a buffer, ``one`` on one thread; ``call`` draws
    the plan too, as ``dali`` does; ``copy`` fills a ready buffer; ``plain`` is what a user would write, where that is
    more than a copy.
    """
    plan, options = draw(case, batch)
    out = torch.empty(case.shape, dtype=case.torch_dtype)
    sides: dict[str, Run] = {
        "ours": lambda: apply(batch.images, plan, **options),
        "ready": lambda: apply(batch.images, plan, out=out, **options),
        "one": lambda: on_one_thread(lambda: apply(batch.images, plan, out=out, **options)),
        "call": make_run(case, "ours_out", batch),
        "copy": make_run(case, "copy", batch),
    }
    if case.augmentation in ("mixup", "snapmix"):
        sides["plain"] = make_plain(case, batch.images, plan)
    return sides


def draw(case: Case, batch: Batch) -> tuple[Plan, dict[str, Any]]:
    """Plan of a case, and the other arguments of `apply`."""
    plan = ours.make_augmentation(case).sample(case.shape)
    if case.task != "pipeline":
        return plan, {}
    index, window = draw_index(case, batch.images), ours.draw_window(case, batch.images)
    return plan, {"index": index, "window": window, "mean": MEAN, "std": STD, "dtype": case.torch_dtype}


def make_plain(case: Case, images: Tensor, plan: Plan) -> Run:
    """Code that a user would write for a drawn mix: ``x * (1 - w) + x[q] * w``, or a loop over `F.interpolate`."""
    if case.augmentation == "mixup":
        weight, partners = plan.opacity.view(-1, 1, 1, 1), plan.overlay.long()

        def mix() -> Tensor:
            mixed = images * (1 - weight) + images[partners] * weight
            return mixed if images.is_floating_point() else mixed.round().to(images.dtype)

        return mix
    boxes = list(zip(plan.overlay.tolist(), plan.from_box.tolist(), plan.to_box.tolist(), strict=True))

    def paste() -> Tensor:
        made = images.clone()
        for image, (partner, (top, left, bottom, right), (y0, x0, y1, x1)) in enumerate(boxes):
            if y1 > y0 and x1 > x0:
                cut = images[None, partner, :, top:bottom, left:right].float()
                patch = F.interpolate(cut, size=(y1 - y0, x1 - x0), mode="bilinear", align_corners=True)[0]
                made[image, :, y0:y1, x0:x1] = patch if images.is_floating_point() else patch.round()
        return made

    return paste


def on_one_thread(run: Run) -> Any:
    """Result of a call on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run()
    finally:
        torch.set_num_threads(threads)


def check_equal(case: Case, sides: dict[str, Run]) -> None:
    """AssertionError unless all sides that share a plan make the same pixels: bits, and plain code within rounding."""
    want = sides["one"]().clone()
    for name in ("ours", "ready"):
        assert torch.equal(sides[name](), want), f"{case.name}: {name} makes other pixels than one thread"
    if "plain" in sides:
        # Interpolation rounds in another order; pixels lie in 0..255.
        bound = 1.0 if case.dtype == "uint8" else 0.05
        apart = (sides["plain"]().double() - want.double()).abs().max()
        assert apart <= bound, f"{case.name}: plain code differs by {apart}"


def time_sides(sides: dict[str, Run], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds, and seconds of all cores, of a call of every side in every round; the sides take turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _, (name, run) in itertools.product(range(rounds), sides.items()):
        for _ in range(4 if name == "dali" else 1):  # DALI has made two batches ahead
            run()
        calls, start, worked = 0, time.perf_counter(), time.process_time()
        while calls < 1 or time.perf_counter() - start < SECONDS:
            run()
            calls += 1
        times[name].append(((time.perf_counter() - start) / calls, (time.process_time() - worked) / calls))
        if name == "dali":
            time.sleep(0.1)  # its threads go on with batches that nobody has asked for yet
    return times


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """``count`` processes that compute without end."""
    loops = [multiprocessing.get_context("spawn").Process(target=spin, daemon=True) for _ in range(count)]
    for loop in loops:
        loop.start()
    time.sleep(1)  # they import this module first
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.join()


def spin() -> None:
    while True:
        pass


def measure(case: Case, make: Callable[[Case], dict[str, Run]] = make_sides) -> list[Row]:
    """Rows of a case: ms of every side, idle and beside as many busy loops as there are cores.

    ``cpu_ms`` is the work of all threads in the best round: it hardly depends on what else the cores do.
    """
    torch.manual_seed(0)
    sides = make(case)
    check_equal(case, sides)
    rows = []
    for load in ROUNDS:
        with busy_loops((os.cpu_count() or 1) if load == "busy" else 0):
            times = time_sides(sides, ROUNDS[load])
        for side, pairs in times.items():
            seconds, worked = zip(*pairs, strict=True)
            found = {"fastest_ms": min(seconds) * 1e3, "median_ms": statistics.median(seconds) * 1e3}
            found |= {"slowest_ms": max(seconds) * 1e3, "cpu_ms": min(worked) * 1e3}
            rows.append({**vars(case), "load": load, "side": side} | {k: round_figure(v) for k, v in found.items()})
    return rows


def describe(rows: list[Row]) -> str:
    """Line for each load of a case."""
    lines = []
    for load in ROUNDS:
        shown = {row["side"]: (row["fastest_ms"], row["median_ms"]) for row in rows if row["load"] == load}
        lines.append(f"  {load}: " + ", ".join(f"{side} {low:.4g}/{mid:.4g}" for side, (low, mid) in shown.items()))
    return "\n".join(lines)


def render(folder: Path = FOLDER) -> str:
    """Table of each CPU's results for docs/benchmarks.md."""
    paths = sorted(folder.glob("busy-*.json"))
    return (
        "\n".join(_render_cpu(json.loads(path.read_text(encoding="utf-8"))) for path in paths) or "Not measured yet.\n"
    )


def _render_cpu(results: dict[str, Any]) -> str:
    heads = "augmentation | dtype | px | work / copy | work / plain | idle, ms | / copy | / plain | / DALI "
    heads += "| busy, ms | / one thread | / plain | / DALI"
    lines = [f"| {heads} |", f"|{' --- |' * 2}{' ---: |' * 11}"]
    rows: dict[Case, dict[tuple[str, str], Row]] = {}
    for row in results["rows"]:
        rows.setdefault(read_case(row), {})[row["load"], row["side"]] = row
    for case, found in rows.items():
        idle, busy = (partial(divide, found, load) for load in ROUNDS)
        name = TITLES[case.augmentation] + (", pipeline" if case.task == "pipeline" else "")
        cells = [name, "uint8 to float32" if case.task == "pipeline" else case.dtype, str(case.size)]
        cells += [idle("cpu_ms", "ready", "copy"), idle("cpu_ms", "ours", "plain")]
        cells += [f"{found['idle', 'ready']['fastest_ms']:.3g}"]
        cells += [idle("fastest_ms", *pair) for pair in (("ready", "copy"), ("ours", "plain"), ("call", "dali"))]
        cells += [f"{found['busy', 'ready']['median_ms']:.3g}"]
        cells += [busy("median_ms", *pair) for pair in (("ready", "one"), ("ours", "plain"), ("call", "dali"))]
        lines.append(f"| {' | '.join(cells)} |")
    head = f"**CPU**: {results['device']}, {results['threads']} threads; commit {results['commit']}."
    return "\n".join([head, "", *lines]) + "\n"


def divide(found: dict[tuple[str, str], Row], load: str, field: str, ours: str, other: str) -> str:
    """Ratio of two sides of a case under one load, as text; "-" where the other side was not measured."""
    if (load, other) not in found:
        return "-"
    return f"{found[load, ours][field] / found[load, other][field]:.2f}"


def main(words: list[str]) -> None:
    """Measure the cases that hold one of ``words``, and keep the results of all."""
    rows: list[Row] = []
    environment = describe_environment("cpu")
    path = results_path("busy", environment)
    for case in list_cases():
        if words and not any(word in case.name for word in words):
            continue
        found = measure(case)
        print(f"{case.name}\n{describe(found)}", flush=True)
        rows += found
        if not words:  # after every case: a run takes a while, and its end may be cut off
            write_results(path, environment, rows)
    if not words:
        print(f"results are in {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
