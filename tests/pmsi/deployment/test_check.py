"""Checks: images with labels, agreement and latency, and files that give something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pmsi.deployment.check import check_file, measure_latency, read_check_images
from pmsi.deployment.runtimes import Predict
from tests.helpers.dataset_files import save_image
from tests.helpers.small_export import describe, make_blue


def test_findings_are_counted() -> None:
    _, _, checked = make_blue()
    wanted = np.eye(2, dtype=np.float32)[checked.labels]
    done: list[int] = []

    def half(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.tile(np.array([[0.75, 0.25]], np.float32), (len(images), 1))

    found = check_file(half, half, wanted, checked, done.append)
    assert (found.images, found.agreement, found.accuracy, found.checkpoint_accuracy) == (32, 50, 50, 100)
    assert found.largest_difference == pytest.approx(0.75)
    assert found.worse
    assert found.to_dict()["verdict"] == "worse"
    assert done[-1] == 32
    with pytest.raises(ValueError, match=r"gives \[32, 3\], not probabilities \[32, 2\]"):
        check_file(lambda images: np.zeros((len(images), 3), np.float32), half, wanted, checked, done.append)


def test_models_take_turns() -> None:
    order: list[str] = []

    def make(name: str) -> Predict:
        def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            order.append(name)
            return images.astype(np.float32)

        return predict

    times = measure_latency([make("a"), make("b")], np.zeros((1, 3, 8, 8), np.uint8))
    assert order[:4] == ["a", "b", "a", "b"]
    assert all(one >= 0 for one in times)


def test_a_folder_of_images_must_fit_the_classes(tmp_path: Path) -> None:
    for name in ("blue", "dark"):
        (tmp_path / "good" / name).mkdir(parents=True)
        save_image(tmp_path / "good" / name / "a.png")
    found = read_check_images(tmp_path / "good", describe())
    assert found.labels.tolist() == [1, 0]
    assert found.images.shape == (2, 3, 8, 8)
    (tmp_path / "other" / "wren").mkdir(parents=True)
    (tmp_path / "empty" / "blue").mkdir(parents=True)
    for name, kind, message in (
        ("other", ValueError, "has 'wren', which is none of the network's 2 classes"),
        ("empty", ValueError, "holds no images"),
        ("good/blue", ValueError, "has no folder of the network's 2 classes"),
        ("nowhere", FileNotFoundError, "there is no folder"),
    ):
        with pytest.raises(kind, match=message):
            read_check_images(tmp_path / name, describe())
