"""Images held out of the training images, to choose settings by, and training on the first images of each class."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from pmsi.data.dataset import load_dataset as load_data
from pmsi.data.layouts import list_images
from tests.helpers.dataset_files import CLASSES, write_cub


def test_images_are_held_out_of_the_training_images(tmp_path: Path) -> None:
    root = write_cub(tmp_path)
    real = list_images("cub", root)
    held = list_images("cub", root, 2)
    assert [path.name for path, _ in real.train] == ["0.png", "2.png"] * 3
    assert [(path.name, label) for path, label in held.train] == [("0.png", label) for label in range(3)]
    assert [(path.name, label) for path, label in held.test] == [("2.png", label) for label in range(3)]
    assert not {*held.test} & {*real.test}
    for stream in (False, True):
        dataset = load_data("cub", root, resize=8, hold_out=2, stream=stream)
        assert (len(dataset.train.labels), dataset.test.labels.tolist()) == (3, [0, 1, 2])
        assert dataset.classes == CLASSES
        assert "tested on training images 2, 4, ... of each class, and on none of its test images" in dataset.protocol
    for every, message in ((1, "hold_out must be 2 or more"), (3, "no test images")):
        with pytest.raises(ValueError, match=message):
            load_data("cub", root, resize=8, hold_out=every)


def test_both_splits_are_kept_in_the_cache(tmp_path: Path) -> None:
    root = write_cub(tmp_path / "birds")
    said: list[str] = []
    for every in (None, 2, None, 2):
        load_data("cub", root, resize=8, hold_out=every, cache=tmp_path / "kept", say=said.append)
    assert len(said) == len(list((tmp_path / "kept").iterdir())) == 4


def test_the_first_training_images_of_each_class_alone(tmp_path: Path) -> None:
    root = write_cub(tmp_path / "birds")
    real, few = list_images("cub", root), list_images("cub", root, train_per_class=1)
    assert [(path.name, label) for path, label in few.train] == [("0.png", label) for label in range(3)]
    assert few.test == real.test
    load = partial(load_data, "cub", root, resize=8, cache=tmp_path / "kept", say=lambda _: None)
    whole, part = (load(train_per_class=count) for count in (None, 1))
    assert torch.equal(part.train.images, whole.train.images[::2])
    assert "trained on the first 1 training images of each class" in part.protocol
    for count, message in (
        (0, "must be 1 or more, got 0"),
        (3, "train_per_class is 3, but a class has only 2 training"),
    ):
        with pytest.raises(ValueError, match=message):
            load(train_per_class=count)
    faces = load_data("typefaces", None, resize=16, hold_out=5, train_per_class=3)
    assert torch.bincount(faces.train.labels).tolist() == [3] * len(faces.classes)


def test_typefaces_can_be_held_out_too() -> None:
    whole, part = (load_data("typefaces", None, resize=16, hold_out=every) for every in (None, 5))
    count = torch.bincount(whole.train.labels)
    assert torch.equal(torch.bincount(part.test.labels), count // 5)
    assert len(part.train.labels) + len(part.test.labels) == len(whole.train.labels)
    first = (whole.train.labels == 0).nonzero().flatten()
    assert torch.equal(part.test.images[part.test.labels == 0], whole.train.images[first[4::5]])
