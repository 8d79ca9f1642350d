"""Kernel time on a GPU by replayed graphs, and the choices that the model cannot decide: `python -m bench.gpu.timing`.

``python -m bench.gpu.timing OUT.json SECONDS`` times a few cases with each choice, then every case of the model as the
package has it, until the seconds are over, and writes rows and the choice that wins. A graph launches on several sets
of images in turn, since one batch of bytes fits the L2 cache; the host's CPU time for drawing and launching is measured
apart.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.results import FOLDER, Row
from bench.throughput.cases import Case, centre
from bench.throughput.rows import read_case
from bench.throughput.sides.ours import make_augmentation
from mosaicaug import Augmentation, PlanBuffer, apply
from mosaicaug.backends.triton import chunks, kernel, launch
from tests.helpers.ptx.launch import load_module

SETS = 4  # of images, taken in turn
ROUNDS = 5  # of which the fastest counts
REPEATS = 5  # launches on each set in a graph
BASE_LOAD = "mask=base_mask[:, None], other=0)"  # of pixels that are read once

Timer = Callable[[Sequence[Callable[[], object]]], float]


@dataclass(frozen=True)
class Choice:
    """Setting of the launch that only a GPU can judge; None and False leave it as the package has it."""

    name: str
    rows: int | None = None  # of a chunk, at most
    chunks: int | None = None  # of a program
    evict_first: bool = False  # pixels that are read leave the caches before others


CHOICES = (
    Choice("as it is"),
    Choice("4 rows", rows=4),
    Choice("2 rows", rows=2),
    Choice("1 row", rows=1),
    Choice("256 chunks", chunks=256),
    Choice("512 chunks", chunks=512),
    Choice("evict first", evict_first=True),
)
CASES = (
    centre("rmg", dtype="uint8"),
    centre("rmg"),
    centre("cutmix", dtype="uint8"),
    centre("mixup", dtype="bfloat16"),
    centre("snapmix"),
    replace(centre("rmg", dtype="uint8"), level=5, size=224),
)


@contextmanager
def use_choice(choice: Choice) -> Iterator[None]:
    """Kernel and launch as ``choice`` has them."""
    before = launch.MOST_ROWS, launch.CHUNKS, kernel._apply_plan_kernel
    with tempfile.TemporaryDirectory() as folder:
        try:
            launch.MOST_ROWS, launch.CHUNKS = choice.rows or before[0], choice.chunks or before[1]
            module: Any = kernel
            if choice.evict_first:
                source = Path(str(chunks.__file__)).read_text(encoding="utf-8")
                assert source.count(BASE_LOAD) == 2
                hinted = source.replace(BASE_LOAD, BASE_LOAD[:-1] + ', eviction_policy="evict_first")')
                planted = load_module("evict_first_chunks", hinted, Path(folder))
                whole = Path(str(kernel.__file__)).read_text(encoding="utf-8")
                module = load_module("evict_first_kernel", whole, Path(folder))
                module.make_chunks = planted.make_chunks
            kernel._apply_plan_kernel = module._apply_plan_kernel
            kernel._kept.clear()
            yield
        finally:
            launch.MOST_ROWS, launch.CHUNKS, kernel._apply_plan_kernel = before
            kernel._kept.clear()


def time_graph(launches: Sequence[Callable[[], object]]) -> float:
    """Time of one launch on the GPU, us: a graph of all of them, `REPEATS` times over, replayed."""
    for call in launches:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(REPEATS):
            for call in launches:
                call()
    graph.replay()
    found = list[float]()
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) * 1000 / (REPEATS * len(launches)))
    return min(found)


def time_host(call: Callable[[], object], calls: int) -> float:
    """CPU time of a call, us: the least."""
    found = []
    for _ in range(calls):
        start = time.thread_time_ns()
        call()
        found.append((time.thread_time_ns() - start) / 1000)
    return min(found)


def measure_case(
    case: Case, choices: Sequence[Choice], device: str, end: float, timer: Timer = time_graph, host_calls: int = 100
) -> Iterator[Row]:
    """Rows of a case: kernel, copy and host, us, one row for each choice until the time ``end``."""
    # 1. Images in sets, a plan in the memory of the GPU, and the model's word.
    aug = make_augmentation(case)
    images = [_make_images(case, device) for _ in range(SETS)]
    outs = [torch.empty_like(one) for one in images]
    buffer = PlanBuffer(aug.sample(case.shape), device)
    pairs = list(zip(images, outs, strict=True))
    copy = timer([partial(out.copy_, one) for one, out in pairs])
    modelled = read_model(case)
    # 2. Each choice on the same memory.
    for choice in choices:
        if time.monotonic() > end:
            return
        with use_choice(choice):
            took = timer([partial(apply, one, buffer, out=out, backend="triton") for one, out in pairs])
            host = time_host(partial(_draw_and_apply, aug, images[0], outs[0]), host_calls)
        yield {
            "case": case.name,
            "choice": choice.name,
            "kernel_us": round(took, 2),
            "copy_us": round(copy, 2),
            "host_us": round(host, 1),
            "of_copy": round(copy / took, 3),
            "modelled_of_copy": modelled,
        }


def read_model(case: Case, path: Path = FOLDER / "gpu-model.json") -> dict[str, float]:
    """Fraction of a copy's speed that the model gives a case, by chip; empty where it has none."""
    for row in _read_rows(path):
        if read_case(row) == replace(case, batch=32, per="sample"):
            return {chip: row[chip]["fraction_of_copy"] for chip in ("H100", "H200")}
    return {}


def list_modelled(path: Path = FOLDER / "gpu-model.json") -> list[Case]:
    """Cases that the model has figures for."""
    return [read_case(row) for row in _read_rows(path)]


def name_winner(rows: Sequence[Row]) -> dict[str, Any]:
    """Choice of the least time over the cases that were timed with all choices, as a geometric mean to "as it is"."""
    took: dict[str, dict[str, float]] = {}
    for row in rows:
        took.setdefault(row["choice"], {})[row["case"]] = row["kernel_us"]
    whole = [case for case in took.get(CHOICES[0].name, {}) if all(case in times for times in took.values())]
    if not whole:
        return {"choice": CHOICES[0].name, "times": {}}
    plain = took[CHOICES[0].name]
    ratios = {
        name: round(math.exp(sum(math.log(times[case] / plain[case]) for case in whole) / len(whole)), 3)
        for name, times in took.items()
    }
    return {"choice": min(ratios, key=lambda name: ratios[name]), "times": ratios}


def render(found: dict[str, Any]) -> str:
    """Rows and winner as Markdown."""
    heads = ["case", "choice", "kernel, us", "copy, us", "of a copy", "modelled, H100 / H200", "host, us"]
    lines = [heads, ["---"] * 2 + ["---:"] * 5]
    for row in found["rows"]:
        modelled = " / ".join(f"{value:.2f}" for value in row["modelled_of_copy"].values()) or "-"
        cells = [row["case"], row["choice"], f"{row['kernel_us']:.1f}", f"{row['copy_us']:.1f}"]
        lines.append([*cells, f"{row['of_copy']:.2f}", modelled, f"{row['host_us']:.0f}"])
    times = ", ".join(f"{name} {ratio:.3f}" for name, ratio in found["winner"]["times"].items()) or "none"
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\nWinner: {found['winner']['choice']} (times to as it is: {times})."


def main(words: Sequence[str] | None = None) -> int:
    """Time until the seconds are over, and write what was found after each row."""
    path, seconds = list(words or sys.argv[1:])
    end = time.monotonic() + float(seconds)
    if not torch.cuda.is_available():
        print("gpu-timing: no CUDA device on this machine")
        return 1
    rows: list[Row] = []
    asked = [
        *((case, CHOICES, 100) for case in CASES),
        *((case, CHOICES[:1], 20) for case in list_modelled() if case not in CASES),
    ]
    for case, choices, host_calls in asked:
        for row in measure_case(case, choices, "cuda", end, host_calls=host_calls):
            rows.append(row)
            Path(path).write_text(json.dumps({"rows": rows, "winner": name_winner(rows)}), encoding="utf-8")
    return 0


def _read_rows(path: Path) -> list[Row]:
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return rows


def _draw_and_apply(aug: Augmentation, images: Tensor, out: Tensor) -> Tensor:
    return apply(images, aug.sample(images.shape), out=out, backend="triton")


def _make_images(case: Case, device: str) -> Tensor:
    pixels = torch.randint(0, 256, case.shape, dtype=torch.uint8, device=device)
    layout = torch.channels_last if case.layout == "channels_last" else torch.contiguous_format
    return pixels.to(case.torch_dtype).contiguous(memory_format=layout)


if __name__ == "__main__":
    sys.exit(main())
