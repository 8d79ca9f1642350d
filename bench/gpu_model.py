"""Model of the kernel for every row of the benchmark, on H100 and H200: `python -m bench.gpu_model [WORD ...]`.

Nothing is measured: see `bench.gpu.roofline`. A run of all cases writes bench/results/gpu-model.json; with words, cases
whose names hold one of them are printed only.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import torch

from bench.gpu.roofline import CHIPS, count, floor, make_row
from bench.gpu.traffic import SECTOR, count_tile_sectors
from bench.results import FOLDER, ROOT, write_results
from bench.throughput.batch import stored_size
from bench.throughput.cases import DTYPES, LAYOUTS, PEERS, SIZES, Case, centre, list_pairs
from bench.throughput.sides.ours import make_augmentation
from mosaicaug.backends.request import Request, make_empty
from mosaicaug.backends.triton import kernel as backend
from mosaicaug.backends.triton.launch import Launch
from mosaicaug.backends.triton.table import pack
from pmsi.runtime.environment import read_commit

PATH = FOLDER / "gpu-model.json"
IMAGES = 4  # executed of each case: their boxes differ
RECURSIONS, GRIDS = (1, 2, 3, 4, 5), (2, 4, 7, 8, 14, 16)


def list_cases() -> list[Case]:
    """Cases that differ in the kernel: those of the benchmark, and more levels, dtypes and layouts of each."""
    cases = [replace(case, batch=32, per="sample") for case, _ in list_pairs("cuda") if case.task != "draw"]
    for size, dtype, layout in itertools.product(SIZES, DTYPES, LAYOUTS):
        change: dict[str, Any] = {"size": size, "dtype": dtype, "layout": layout}
        cases += [centre("rmg", **(change | {"level": r})) for r in RECURSIONS]
        cases += [centre("jigsaw", **(change | {"level": n})) for n in GRIDS]
        cases += [centre(name, **change) for name in ("cutmix", "mixup", "snapmix")]
    for name, dtype, layout in itertools.product(PEERS, ("float32", "bfloat16"), LAYOUTS):
        cases.append(centre(name, task="pipeline", dtype=dtype, layout=layout))
    return list(dict.fromkeys(cases))


def make_launch(case: Case, images: int = IMAGES) -> Launch:
    """Launch of a case on few images; a pipeline crops and flips stored uint8 images of its layout."""
    last, device = case.layout == "channels_last", torch.device("cpu")
    shape, generator = (images, 3, case.size, case.size), torch.Generator().manual_seed(0)
    plan = make_augmentation(case).sample(shape, generator=generator)
    request = Request(case.torch_dtype, channels_last=last)
    stored = case.torch_dtype, case.size
    if case.task == "pipeline":
        stored = torch.uint8, stored_size(case.size)
        room = stored[1] - case.size
        corner = torch.randint(room + 1, (images, 2), generator=generator)
        window = torch.cat([corner, torch.randint(2, (images, 1), generator=generator)], 1)
        index = torch.randperm(images, generator=generator)
        request = replace(request, window=window, index=index, mean=torch.zeros(3), std=torch.ones(3))
    source = make_empty((images, 3, stored[1], stored[1]), stored[0], device, channels_last=last)
    return backend.typed_arguments(source, pack([plan]), request, request.make_output(shape, device))


def model(case: Case) -> dict[str, Any]:
    """Row of results: the case, and its figures."""
    images = IMAGES if case.augmentation in ("cutmix", "snapmix") or case.task == "pipeline" else 1
    reads = 2.0 if case.augmentation == "mixup" else 1.0
    counted = count(make_launch(case, images), reads=reads, batch=case.batch // images)
    named = {name: value for name, value in asdict(case).items() if name not in ("batch", "per")}
    row = named | make_row(counted)
    if case.task == "augment" and case.augmentation in ("rmg", "jigsaw"):
        loaded, stored = count_tile_bytes(case)
        for chip in CHIPS:
            row[chip.name]["floor"] = round(floor(loaded, stored, chip), 3)
    return row


def count_tile_bytes(case: Case) -> tuple[int, int]:
    """Bytes of the sectors that the tiles of `make_launch`'s first image lie in, and bytes of that image."""
    plan = make_augmentation(case).sample((1, 3, case.size, case.size), generator=torch.Generator().manual_seed(0))
    inner = 3 if case.layout == "channels_last" else 1
    width = case.size * inner * case.torch_dtype.itemsize
    tiles = plan.tiles[0].reshape(plan.grid, plan.grid).numpy()
    planes = 3 // inner
    return planes * count_tile_sectors(tiles, case.size, width) * SECTOR, planes * case.size * width


def describe(row: dict[str, Any]) -> str:
    """One line about a row."""
    name = f"{row['task']}-{row['augmentation']}{row['level'] or ''}-{row['size']}-{row['dtype']}-{row['layout']}"
    parts = [f"{name:44} {row['registers']:3} registers, {row['instructions_per_kb']:6.1f} instructions per KB"]
    parts += [f"{row['waits']} waits", f"{row['in_flight_kb']:.0f} KB in flight"]
    parts += [f"{chip.name} {row[chip.name]['limiter']} {row[chip.name]['ratio']:.2f}" for chip in CHIPS]
    return ", ".join(parts)


def list_rows(words: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of the cases whose names hold one of the words, or of all."""
    for case in list_cases():
        if not words or any(word in case.name for word in words):
            yield model(case)


def main() -> None:
    """Print every row, and write all of them if none was left out."""
    words, rows = sys.argv[1:], []
    for row in list_rows(words):
        rows.append(row)
        print(describe(row), flush=True)
    if not words:
        head = {"chips": [asdict(chip) for chip in CHIPS], "commit": read_commit("bench/results")}
        write_results(PATH, head, rows)
        print(f"{PATH.relative_to(ROOT)} is written")


if __name__ == "__main__":
    main()
