"""The benchmark of the training engine: its gates go red on planted bugs, and its tables say what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.optim import SGD

from bench import gpu_check, pages, results
from bench.throughput import gates
from bench.throughput.laws import GateError
from bench.training import gates as engine_gates
from bench.training import measure, ours, plain
from bench.training import tables as engine_tables
from bench.training import test_training as bench_test
from bench.training.ours import OurInput
from bench.training.photos import write_photos
from bench.training.plain import PlainInput
from mosaicaug import Plan
from pmsi.data.preprocess import preprocess
from tests.helpers.small_run import RECIPE, make_dataset

CPU = torch.device("cpu")
SMALL = replace(RECIPE, epochs=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder, 8)
    return folder


@pytest.fixture
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)


def test_photos_are_as_large_as_those_of_cub(photos: Path) -> None:
    files = sorted(photos.glob("train/*/*.jpg"))
    assert [Image.open(file).size for file in files] == [(500, 375)] * 8
    assert all(85e3 < file.stat().st_size < 110e3 for file in files)
    assert len({file.read_bytes() for file in files}) == 8


def test_both_sides_show_the_same_pixels(photos: Path) -> None:
    recipe = replace(SMALL, resize=110, crop=96)
    engine_gates.check_pixels(OurInput(photos, recipe, CPU), PlainInput(photos, recipe, CPU), recipe)


@pytest.mark.parametrize("bug", ["flip", "crop", "channels", "labels"])
def test_other_pixels_are_noticed(photos: Path, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    def show_wrongly(images: Tensor, plan: Plan, index: Tensor, window: Tensor) -> Tensor:
        if bug == "flip":
            window = window * torch.tensor([1, 1, 0])
        if bug == "crop":
            window = (window - torch.tensor([1, 0, 0])).clamp(min=0)
        return preprocess(images.flip(1) if bug == "channels" else images, plan, index, window)

    own, theirs = OurInput(photos, SMALL, CPU), PlainInput(photos, SMALL, CPU)
    if bug == "labels":
        own.store.labels = own.store.labels.flip(0)
    monkeypatch.setattr(engine_gates, "preprocess", show_wrongly)
    with pytest.raises(GateError, match="label" if bug == "labels" else "pixels differ by"):
        engine_gates.check_pixels(own, theirs, SMALL)


@pytest.mark.usefixtures("one_worker")
@pytest.mark.parametrize("make", [OurInput, PlainInput])
def test_both_sides_make_lawful_mosaics(make: engine_gates.Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "CALLS", 4)
    engine_gates.check_mosaics(make, CPU)


def test_a_phase_without_its_mosaic_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def show_raw(images: Tensor, plan: Plan, index: Tensor, window: Tensor, **_: Any) -> Tensor:
        return preprocess(images, Plan.identity(len(plan), plan.size), index, window)

    monkeypatch.setattr(ours, "preprocess", show_raw)
    with pytest.raises(GateError, match="nothing was changed"):
        engine_gates.check_mosaics(OurInput, CPU)


@pytest.mark.usefixtures("small_backbone")
def test_both_trainers_take_the_same_step(tmp_path: Path) -> None:
    engine_gates.check_step(SMALL, make_dataset(), "cpu", tmp_path)


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("bug", ["weight", "output", "momentum", "rates"])
def test_another_step_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    def forget(*words: Any, **options: Any) -> SGD:
        return SGD(*words, **{**options, "momentum": 0.0} if bug == "momentum" else {**options, "lr": 1e-6})

    *stages, concat = plain.PHASES
    if bug == "weight":
        monkeypatch.setattr(plain, "PHASES", (*stages, (None, 0, 1.0)))
    elif bug == "output":
        monkeypatch.setattr(plain, "PHASES", (*stages[::-1], concat))
    else:
        monkeypatch.setattr(plain, "SGD", forget)
    with pytest.raises(GateError, match="losses" if bug in ("weight", "output") else "weights moved"):
        engine_gates.check_step(SMALL, make_dataset(), "cpu", tmp_path)


@pytest.mark.usefixtures("one_worker", "small_backbone")
def test_rows_hold_what_was_measured(photos: Path, tmp_path: Path) -> None:
    write_photos(tmp_path, 8)
    plain_row, our_row = measure.measure_input(tmp_path, SMALL, "cpu", rounds=2)
    assert (plain_row["side"], our_row["side"], our_row["size"], our_row["batch"]) == ("plain", "ours", 32, 4)
    assert len(our_row["epochs"]) == 2
    assert min(our_row["epochs"]) <= our_row["images_per_s"] <= max(our_row["epochs"])
    assert our_row["first_epoch_images_per_s"] > 0
    rows = measure.measure_steps(photos, SMALL, "cpu", ("plain", "32"), rounds=1, epochs=2)
    assert [(row["side"], len(row["epochs"]), row["step_bytes"] > 0) for row in rows] == [
        ("plain", 2, True),
        ("32", 2, True),
    ]
    assert 0 < rows[1]["input_share"] < 1


def test_what_fails_has_no_time() -> None:
    rows: list[results.Row] = []
    with pytest.raises(GateError), bench_test._record_failure("step", 96, rows.append):
        raise GateError("the losses differ")
    assert rows == [{"task": "step", "size": 96, "failed": "GateError: the losses differ"}]


def fake_rows() -> Iterator[results.Row]:
    for recipe in measure.INPUTS.values():
        for side, rate in (("plain", 100.0), ("ours", 850.0)):
            yield measure.make_row("input", side, recipe, [rate] * 3, first_epoch_images_per_s=rate / 2)
    for side, rate in (("plain", 50.0), ("32", 100.0), ("bf16", 200.0), ("bf16, compiled", 250.0)):
        share = {} if side == "plain" else {"input_share": 0.0123}
        yield measure.make_row("step", side, measure.PAPER, [rate], step_bytes=2e9, **share)


def write_fake(folder: Path, name: str, device_type: str, rows: list[results.Row]) -> None:
    environment = {"device": "Fast One", "device_type": device_type, "threads": 2, "commit": "abc", "versions": {}}
    extra = {"engine": rows} if name.startswith("gpu-check") else {}
    results.write_results(folder / f"{name}.json", environment | extra, [] if extra else rows)


@pytest.mark.parametrize("name", ["engine-fast-one", "gpu-check-fast-one"])
def test_tables_show_ratios_and_hours(tmp_path: Path, name: str) -> None:
    write_fake(tmp_path, name, "cuda", list(fake_rows()))
    text = engine_tables.render(tmp_path)
    assert text.startswith("**CPU**: not measured.\n\n**GPU**: Fast One, 2 CPU threads")
    assert "| 448 px, batches of 32 | 850 | 100 | 8.5 | 425 | 50 |" in text
    assert "| published loop, fp32, 448 px, batches of 32 | 50 | 1.00 | - | 2,000 | 5.0 |" in text
    assert "| ours, bf16, compiled, 448 px, batches of 32 | 250 | 5.00 | 1.2 | 2,000 | 1.0 |" in text


def test_tables_say_what_failed_and_what_was_not_measured(tmp_path: Path) -> None:
    assert engine_tables.render(tmp_path) == "**CPU**: not measured.\n\n**GPU**: not measured.\n"
    write_fake(tmp_path, "engine-cpu", "cpu", [{"task": "step", "size": 96, "failed": "GateError: no"}])
    assert "step at 96 px failed: GateError: no" in engine_tables.render(tmp_path)
    assert "engine" in pages.PAGES["README.md"]


def test_rows_of_a_complete_run_are_as_many_as_settings() -> None:
    assert [measure.count_rows(device) for device in ("cpu", "cuda")] == [6, 8]
    assert len(list(fake_rows())) == measure.count_rows("cuda")


def test_the_check_on_a_gpu_ends_in_eight_minutes() -> None:
    assert sum(gpu_check.LIMITS.values()) + len(gpu_check.LIMITS) * gpu_check.GRACE <= 480
