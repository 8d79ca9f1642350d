"""Initial weights: the file of a folder that fits a backbone, refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmsi.experiments.source import Source, describe_data, describe_weights
from tests.helpers.small_run import make_dataset


def test_a_folder_of_weights_has_a_file_for_each_backbone(tmp_path: Path) -> None:
    for name in ("mobilenet_v2_imagenet.pth", "resnet18.pth", "resnet34-b627a593.pth"):
        (tmp_path / name).touch()
    source = Source(weights=str(tmp_path))
    assert source.find_weights("resnet34") == str(tmp_path / "resnet34-b627a593.pth")
    assert source.find_weights("mobilenet_v2") == str(tmp_path / "mobilenet_v2_imagenet.pth")
    with pytest.raises(FileNotFoundError, match=r"has no file resnet50\*.pth; put it there, or give one file"):
        source.find_weights("resnet50")
    assert Source(weights="imagenet").find_weights("resnet18") == "imagenet"


def test_data_are_described_with_their_classes() -> None:
    found = describe_data(make_dataset())
    assert (found["classes"], found["class_names"]) == (3, ["a", "b", "c"])
    assert (found["train_images"], found["test_images"], found["protocol"]) == (12, 6, "Random pixels.")


def test_weights_are_described_by_their_bytes(tmp_path: Path) -> None:
    file = tmp_path / "birds.pth"
    file.write_bytes(b"tensors")
    first = describe_weights(str(file))
    assert first.startswith("birds.pth (sha256 ")
    file.write_bytes(b"others")
    assert describe_weights(str(file)) != first
    assert describe_weights("imagenet") == "imagenet"
    assert describe_weights(str(tmp_path / "nowhere.pth")) == "nowhere.pth (sha256 missing)"
