"""Largest sizes: an indexed set of more than 2**31 elements on a memory map, and a batch of 4,096."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.results import Row
from mosaicaug import Plan, apply, apply_masks
from tests.helpers.dense_oracle import trace_sources
from tests.helpers.oracle import seeded
from tests.properties.cases import Case
from tests.properties.pixels import expect_bits, list_backends, run_backend

SIDE, CROP, CHANNELS = 64, 48, 3
COUNT = 2**31 // (CHANNELS * SIDE * SIDE) + 100  # images: more than 2**31 elements
BATCH = 4096


def run() -> list[Row]:
    """Try every largest size; one row each, with its status."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for dtype in (torch.uint8, torch.float32):
            for layout in ("contiguous", "channels_last"):
                name = f"indexed set on a memory map, {str(dtype).removeprefix('torch.')}, {layout}"
                shape = [COUNT, CHANNELS, SIDE, SIDE]
                entries = len(list_filled()) + 1
                rows.append(try_size(name, shape, entries, partial(check_indexed_set, Path(folder), dtype, layout)))
        rows.append(try_size("batch", [BATCH, CHANNELS, SIDE, SIDE], BATCH, check_batch))
    return rows


def try_size(name: str, shape: list[int], batch: int, check: Callable[[], None]) -> Row:
    """Try stored images of one shape and a batch of them; a row with its status: "passed", or what was raised."""
    start, status = time.time(), "passed"
    try:
        check()
    except Exception as error:  # a failure is a result
        status = f"{type(error).__name__}: {error}".splitlines()[0]
    elements = int(np.prod(shape))
    print(f"soak: {name}, {elements:,} elements: {status} ({time.time() - start:.0f} s)", flush=True)
    return {"name": name, "shape": shape, "elements": elements, "batch": batch, "status": status}


def open_sparse(path: Path, dtype: torch.dtype, layout: str) -> Tensor:
    """Images on a new sparse file, zero but for some at both ends and round element 2**31."""
    shape = (COUNT, CHANNELS, SIDE, SIDE) if layout == "contiguous" else (COUNT, SIDE, SIDE, CHANNELS)
    if dtype == torch.uint8:
        stored = torch.from_file(str(path), shared=True, size=int(np.prod(shape)), dtype=dtype).view(shape)
    else:
        stored = torch.from_numpy(np.memmap(path, np.float32, "w+", shape=shape))
    for image in list_filled():
        stored[image] = torch.randint(1, 256, shape[1:], generator=seeded(image)).to(dtype)
    return stored if layout == "contiguous" else stored.permute(0, 3, 1, 2)


def list_filled() -> list[int]:
    """Images that are not zero: first and last, and those before, at and after element 2**31."""
    at = 2**31 // (CHANNELS * SIDE * SIDE)
    return [0, 1, at - 1, at, at + 1, COUNT - 2, COUNT - 1]


def check_indexed_set(folder: Path, dtype: torch.dtype, layout: str) -> None:
    """AssertionError unless every backend finds the images behind element 2**31, cropped, flipped, moved and masked."""
    path = folder / f"{dtype}-{layout}"
    stored = open_sparse(path, dtype, layout)
    filled = list_filled()
    for seed, overlay in enumerate(("none", "in place", "moved")):
        case = Case(
            seed=seed, batch=len(filled) + 1, height=CROP, width=CROP, grid=4, tiles="own", overlay=overlay, channels=3
        )
        fields, index = case.make_fields(), torch.tensor([*filled, 17])
        window = torch.tensor([[entry % 17, 16 - entry, entry % 2] for entry in range(case.batch)])
        sources = trace_sources(fields).look_through(window, index, CROP)
        options = {"index": index, "window": window}
        assert stored.numel() > 2**31
        backends = list_backends() if seed == 0 else ["cpu", "reference"]
        for name in backends:
            if name.startswith("cuda"):
                continue  # a set on a GPU has a test of its own
            expect_bits(run_backend(name, case, stored, Plan.from_dict(fields), options), sources.copy(stored))
        made = apply_masks(stored[:, 0], Plan.from_dict(fields), index=index, window=window)
        expect_bits(made, sources.copy(stored[:, 0]))
        whole = Case(seed=seed, batch=len(filled), height=SIDE, width=SIDE, grid=4, tiles="own", overlay=overlay)
        made = apply(stored, whole.make_plan(), index=index[:-1])
        expect_bits(made, trace_sources(whole.make_fields()).look_through(None, index[:-1], SIDE).copy(stored))
    del stored
    path.unlink()


def check_batch() -> None:
    """AssertionError unless a batch of 4,096 is the oracle's, by every backend but the interpreter."""
    images = torch.randint(0, 256, (BATCH, CHANNELS, SIDE, SIDE), dtype=torch.uint8, generator=seeded(2))
    case = Case(seed=3, batch=BATCH, height=SIDE, width=SIDE, grid=8, tiles="any", overlay="moved", dtype="uint8")
    fields, backends = case.make_fields(), [name for name in list_backends() if name != "interpreter"]
    made = [run_backend(name, case, images, Plan.from_dict(fields), {}) for name in backends]
    for first in range(0, BATCH, 64):  # a grid of 8 leaves no margin, so the plan of some images is a part of the plan
        part = {name: values if name == "size" else values[first : first + 64] for name, values in fields.items()}
        want = trace_sources(part).copy(images)
        for one in made:
            expect_bits(one[first : first + 64], want)
