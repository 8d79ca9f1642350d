"""Formats that are read, each with valid files and what reads them: for fuzzing."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mosaicaug import CutMix, Plan, apply
from pmsi.data.cache import load_or_decode
from pmsi.data.cub_annotations import read_annotations
from pmsi.data.decoding import read_resized
from pmsi.data.download import unpack_archive
from pmsi.data.layouts import list_images
from pmsi.data.pixels import read_size
from pmsi.experiments.folder import list_settings, read_config, read_predictions, read_result
from pmsi.experiments.pictures import read_preview
from pmsi.experiments.results import load_study
from pmsi.experiments.source import Source
from pmsi.models.backbones import _read
from pmsi.models.trained import read_recipe
from pmsi.runtime.checkpoints import load_checkpoint, save_checkpoint
from pmsi.runtime.files import write_json
from tests.helpers.dataset_files import (
    CARS,
    list_cars,
    write_aircraft,
    write_cars,
    write_cars_devkit,
    write_cub,
    write_mat,
)
from tests.helpers.small_run import RECIPE
from tests.helpers.small_study import make_run, make_study
from tests.hostile.images import KINDS, make_picture


@dataclass(frozen=True)
class Format:
    """Format of a file.

    Args:
        path: of the file that is mutated, below the room.
        read: reads the room as the package does.
        text: it is a text.
    """

    path: str
    read: Callable[[Path], object]
    text: bool = False


def make_formats(room: Path) -> dict[str, Format]:
    """Lay out a valid file of every format, in a folder each, and return what reads them."""
    return {name: make(room / name.replace(" ", "-")) for name, make in _MAKERS.items()}


def _make_image(kind: str, room: Path) -> Format:
    room.mkdir()
    (room / "a").write_bytes(make_picture(kind))
    return Format("a", _read_image)


def _read_image(room: Path) -> None:
    read_resized(room / "a", 8)
    assert min(read_size(room / "a")) > 0


def _make_table(write: Callable[[Path], object], layout: str, file: str, room: Path) -> Format:
    write(room)
    return Format(file, partial(list_images, layout), text=file.endswith(".txt"))


def _write_unpacked(room: Path) -> None:
    write_mat(room / "cars_annos.mat", compress=False, annotations=list_cars(room), class_names=[*CARS])


def _make_boxes(room: Path) -> Format:
    write_cub(room)
    (room / "bounding_boxes.txt").write_text("".join(f"{i} {i}.0 2.5 13 4\n" for i in range(1, 10)))
    files = [room / "images" / "001.Red_Knot" / "0.png"]
    return Format("bounding_boxes.txt", lambda room: read_annotations(room, files, resize=36, crop=32), text=True)


def _make_checkpoint(room: Path) -> Format:
    state = {"identity": list_settings(Source(), RECIPE), "history": [{"mix": 1.0}], "model": {"w": torch.rand(40)}}
    save_checkpoint(room / "last.ckpt", state)
    return Format("last.ckpt", lambda room: load_checkpoint(room / "last.ckpt"))


def _make_weights(room: Path, *, legacy: bool) -> Format:
    room.mkdir()
    weights = {"conv1.weight": torch.rand(4, 3, 3, 3), "fc.bias": torch.rand(7), "step": torch.tensor(3)}
    torch.save(weights, room / "a.pth", _use_new_zipfile_serialization=not legacy)
    return Format("a.pth", lambda room: [tensor.sum() for tensor in _read(room / "a.pth").values()])


def _make_cache(room: Path) -> Format:
    pixels = torch.arange(6 * 3 * 4 * 4, dtype=torch.uint8).view(6, 3, 4, 4)
    key = {"root": "/data", "files": "0123", "resize": 4}

    def decode() -> Iterator[torch.Tensor | None]:
        yield from pixels

    def read(room: Path) -> None:
        found, skipped = load_or_decode(room, "x", key, decode, 6, lambda _: None)  # type: ignore[arg-type]
        assert torch.equal(found, pixels), "other pixels"
        assert skipped == []

    read(room)
    return Format(next(room.iterdir()).name, read)


def _make_plan(room: Path) -> Format:
    torch.manual_seed(0)
    write_json(room / "plan.json", CutMix().sample((3, 3, 12, 12)).to_dict())
    images = torch.rand(3, 3, 12, 12)

    def read(room: Path) -> object:
        plan = Plan.from_dict(json.loads((room / "plan.json").read_bytes()))
        return apply(images, plan) if len(plan) == len(images) and plan.size == (12, 12) else plan

    return Format("plan.json", read, text=True)


def _make_json(file: str, values: dict[str, Any], read: Callable[[Path], object], room: Path) -> Format:
    write_json(room / file, values)
    return Format(file, read, text=True)


def _make_results(room: Path) -> Format:
    write_json(room / "results.json", dict(make_study(none=[(80, 82)], rmg=[(79, 81)]).results))
    return Format("results.json", load_study, text=True)


def _make_preview(room: Path) -> Format:
    room.mkdir()
    with (room / "preview.npz").open("wb") as file:
        np.savez_compressed(file, images=np.zeros((2, 3, 3, 4, 4), np.uint8), captions=np.array(["a", "b"]))
    return Format("preview.npz", read_preview)


def _make_archive(packing: str, room: Path) -> Format:
    room.mkdir()
    with tarfile.open(room / "a.tgz", f"w:{packing}") as tar:  # type: ignore[call-overload]
        for name in ("birds/a.txt", "birds/b/c.txt", "birds/link"):
            member = tarfile.TarInfo(name)
            member.size = 0 if name.endswith("link") else 600
            if name.endswith("link"):
                member.type, member.linkname = tarfile.SYMTYPE, "a.txt"
            tar.addfile(member, io.BytesIO(bytes(range(200)) * 3))

    def read(room: Path) -> None:
        (room / "root").mkdir(exist_ok=True)
        unpack_archive(room / "a.tgz", room / "root")

    return Format("a.tgz", read)


_MAKERS: dict[str, Callable[[Path], Format]] = {
    **{f"image {kind}": partial(_make_image, kind) for kind in KINDS},
    **{
        f"table {file}": partial(_make_table, write_cub, "cub", file)
        for file in ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
    },
    "table variants.txt": partial(_make_table, write_aircraft, "aircraft", "variants.txt"),
    "table images_variant_test.txt": partial(_make_table, write_aircraft, "aircraft", "images_variant_test.txt"),
    "table bounding_boxes.txt": _make_boxes,
    "matlab cars_annos.mat": partial(_make_table, write_cars, "cars", "cars_annos.mat"),
    "matlab not packed": partial(_make_table, _write_unpacked, "cars", "cars_annos.mat"),
    "matlab cars_meta.mat": partial(_make_table, write_cars_devkit, "cars", "devkit/cars_meta.mat"),
    "checkpoint": _make_checkpoint,
    "weights": partial(_make_weights, legacy=False),
    "weights of torch before 1.6": partial(_make_weights, legacy=True),
    "cache": _make_cache,
    "plan": _make_plan,
    "config.json": partial(
        _make_json,
        "config.json",
        {**list_settings(Source(), RECIPE), "experiment": "study"},
        lambda room: read_recipe(read_config(room) or {}),
    ),
    "result.json": partial(_make_json, "result.json", make_run(0, 80, 82, "x-seed0"), read_result),
    "predictions.json": partial(
        _make_json, "predictions.json", {"labels": [0, 1], "concat": [0, 1], "mix": [1, 1]}, read_predictions
    ),
    "results.json": _make_results,
    "preview.npz": _make_preview,
    "archive tar.gz": partial(_make_archive, "gz"),
    "archive tar": partial(_make_archive, ""),
}
