"""The gates of the training benchmark pass the sides as they are, and go red on planted bugs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD

from bench.throughput import gates as throughput_gates
from bench.throughput.laws import GateError
from bench.training import gates, plain
from bench.training.ours import OurInput
from bench.training.plain import PlainInput
from mosaicaug import Plan
from pmsi.data.preprocess import preprocess
from pmsi.training import inputs
from tests.helpers.small_run import RECIPE, make_dataset

CPU = torch.device("cpu")
SMALL = replace(RECIPE, epochs=1)


def test_both_sides_show_the_same_pixels(photos: Path) -> None:
    recipe = replace(SMALL, resize=110, crop=96)
    gates.check_pixels(OurInput(photos, recipe, CPU), PlainInput(photos, recipe, CPU), recipe)


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
    monkeypatch.setattr(gates, "preprocess", show_wrongly)
    with pytest.raises(GateError, match="label" if bug == "labels" else "pixels differ by"):
        gates.check_pixels(own, theirs, SMALL)


@pytest.mark.usefixtures("one_worker")
@pytest.mark.parametrize("make", [OurInput, PlainInput])
def test_both_sides_make_lawful_mosaics(make: gates.Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput_gates, "CALLS", 4)
    gates.check_mosaics(make, CPU)


def test_a_phase_without_its_mosaic_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def show_raw(images: Tensor, plan: Plan, index: Tensor, window: Tensor, **_: Any) -> Tensor:
        return preprocess(images, Plan.identity(len(plan), plan.size), index, window)

    monkeypatch.setattr(inputs, "preprocess", show_raw)
    with pytest.raises(GateError, match="nothing was changed"):
        gates.check_mosaics(OurInput, CPU)


@pytest.mark.usefixtures("small_backbone")
def test_both_trainers_take_the_same_step(tmp_path: Path) -> None:
    gates.check_step(SMALL, make_dataset(), "cpu", tmp_path)


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
        gates.check_step(SMALL, make_dataset(), "cpu", tmp_path)
