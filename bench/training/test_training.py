"""Training benchmark: `pmsi` beside plain published code, checked and then timed; run by `pytest --benchmark`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from bench.conftest import choose_device
from bench.results import Row
from bench.training import measure
from bench.training.gates import check_mosaics, check_pixels, check_step
from bench.training.measure import INPUTS
from bench.training.ours import OurInput
from bench.training.photos import write_photos
from bench.training.plain import PlainInput
from pmsi.data.dataset import load_dataset

Record = Callable[[Row], None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    device = choose_device(metafunc.config)
    metafunc.parametrize("device", [device])
    if "settings" in metafunc.fixturenames:
        first, *others = (pytest.param(group, id=" and ".join(group)) for group in measure.SETTINGS[device])
        star = pytest.param(*first.values, id=first.id, marks=pytest.mark.star)
        metafunc.parametrize("settings", [star, *others])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder, measure.count_photos())
    return folder


@pytest.mark.star
@pytest.mark.parametrize("size", INPUTS)
def test_input(size: str, device: str, photos: Path, record_training: Record) -> None:
    recipe, target = INPUTS[size], torch.device(device)
    with _record_failure("input", recipe.crop, record_training):
        check_pixels(OurInput(photos, recipe, target), PlainInput(photos, recipe, target), recipe)
        for make in (OurInput, PlainInput):
            check_mosaics(make, target)
        for row in measure.measure_input(photos, recipe, device):
            record_training(row)


def test_step(settings: tuple[str, ...], device: str, tmp_path: Path, record_training: Record) -> None:
    recipe = measure.STEPS[device]
    rounds, epochs = measure.STEP_ROUNDS[device], measure.STEP_EPOCHS[device]
    write_photos(tmp_path, measure.STEP_BATCHES[device] * recipe.batch_size)
    with _record_failure("step", recipe.crop, record_training):
        check_step(recipe, load_dataset("folder", tmp_path, resize=recipe.resize), device, tmp_path)
        for row in measure.measure_steps(tmp_path, recipe, device, settings, rounds=rounds, epochs=epochs):
            record_training(row)


@contextmanager
def _record_failure(task: str, size: int, record: Record) -> Iterator[None]:
    """Record a row without times for a side that fails its gate."""
    try:
        yield
    except Exception as error:
        record({"task": task, "size": size, "failed": f"{type(error).__name__}: {error}"})
        raise
