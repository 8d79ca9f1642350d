"""Calls without end: what a process holds after thousands of calls of everything that is called in a loop."""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from mosaicaug import (
    Compose,
    CutMix,
    Jigsaw,
    MixUp,
    OneOf,
    Plan,
    RecursiveMosaic,
    SnapMix,
    apply,
    apply_boxes,
    apply_keypoints,
    apply_masks,
)
from pmsi.data.decoding import read_resized
from pmsi.runtime.checkpoints import load_checkpoint, save_checkpoint
from pmsi.runtime.files import read_json, write_json
from tests.hostile.case import count_open_files
from tests.hostile.images import make_picture

Call = Callable[[], object]


class Holdings(NamedTuple):
    """Memory (MB), Python objects, open files and threads of this process."""

    memory: float
    objects: int
    files: int
    threads: int


def measure_holdings() -> Holdings:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc, which else keeps what is free
    if trim is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Holdings(pages * 4096 / 1e6, len(gc.get_objects()), count_open_files(), threading.active_count())


def list_calls() -> list[Call]:
    """Calls of `mosaicaug` on tiny images: every augmentation, annotations, plans to and from JSON, and refusals."""
    images, labels = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    maps = torch.rand(2, 4, 4)
    cut, mosaic = CutMix(num_classes=3), RecursiveMosaic(r=2)
    plan = cut.sample(images.shape)
    boxes = torch.tensor([[[1.0, 1.0, 4.0, 4.0]]] * 2)
    window = torch.tensor([[0, 0, 1]] * 2)

    def refuse() -> None:
        try:
            apply(images[:1], plan)
        except ValueError:
            return
        raise AssertionError("it was to be refused")

    return [
        lambda: apply(images, plan),
        lambda: mosaic(images),
        lambda: cut.sample(images.shape),
        lambda: Jigsaw(2)(images),
        lambda: cut(images, labels),
        lambda: MixUp()(images, labels),
        lambda: SnapMix(num_classes=3)(images, labels, maps=maps),
        lambda: Compose([mosaic, cut])(images, labels),
        lambda: OneOf([mosaic, cut])(images, labels),
        lambda: apply(images, plan, window=window, index=[1, 0], mean=[0.5] * 3, std=[0.5] * 3),
        lambda: apply_masks(labels[:, None, None].expand(2, 8, 8), plan),
        lambda: apply_boxes(boxes, plan),
        lambda: apply_keypoints(boxes[..., :2], plan),
        lambda: Plan.from_dict(json.loads(json.dumps(plan.to_dict()))),
        lambda: mosaic.sample(images.shape).invert(),
        refuse,
    ]


def list_reads(room: Path) -> list[Call]:
    """Reads of files of `pmsi`, good ones and bad ones."""
    picture = make_picture("jpg")
    (room / "good.jpg").write_bytes(picture)
    (room / "bad.jpg").write_bytes(picture[: len(picture) // 2])
    save_checkpoint(room / "last.ckpt", {"identity": {}, "weights": torch.rand(100)})
    (room / "bad.ckpt").write_bytes((room / "last.ckpt").read_bytes()[:-400])
    (room / "bad.json").write_text('{"a": NaN}')

    def refuse(read: Callable[[Path], object], name: str) -> None:
        try:
            read(room / name)
        except ValueError:
            return
        raise AssertionError(name)

    return [
        lambda: read_resized(room / "good.jpg", 8),
        lambda: refuse(lambda path: read_resized(path, 8), "bad.jpg"),
        lambda: load_checkpoint(room / "last.ckpt"),
        lambda: refuse(load_checkpoint, "bad.ckpt"),
        lambda: write_json(room / "good.json", {"a": [1, 2]}),
        lambda: read_json(room / "good.json"),
        lambda: refuse(read_json, "bad.json"),
    ]


def measure_growth(calls: list[Call], count: int) -> Holdings:
    """Carry out ``count`` calls in turn, and measure what the process holds more than after a warm-up of a tenth."""
    with warnings.catch_warnings(action="ignore"):
        for call in itertools.islice(itertools.cycle(calls), max(count // 10, len(calls))):
            call()
        before = measure_holdings()
        for call in itertools.islice(itertools.cycle(calls), count):
            call()
    after = measure_holdings()
    return Holdings(
        after.memory - before.memory,
        after.objects - before.objects,
        after.files - before.files,
        after.threads - before.threads,
    )
