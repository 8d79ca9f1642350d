"""Image folders: parts, classes, and one clear error for each fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmsi.data.layouts import list_images
from tests.helpers.dataset_files import list_labels, refuse, save_image, write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "flowers")


def test_folder_takes_val_where_there_is_no_test(folder: Path) -> None:
    save_image(folder / "val" / "iris" / "0.jpg")
    assert list_images("folder", folder).rule == "image folder split into its train/ and test/"
    (folder / "val").rename(folder / "spare")
    (folder / "test").rename(folder / "val")
    listing = list_images("folder", folder)
    assert list_labels(listing) == ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1])
    assert listing.rule == "image folder split into its train/ and val/"


def test_folder_whose_parts_do_not_fit(folder: Path) -> None:
    (folder / "test" / "rose").rename(folder / "test" / "tulip")
    refuse("folder", folder, "same classes; train/ alone has rose, test/ alone has tulip")
    (folder / "test" / "tulip").rename(folder / "train" / "tulip")
    refuse("folder", folder, "train/ alone has rose, tulip, test/ alone has none")
    (folder / "test").rename(folder / "other")
    refuse("folder", folder, "has train/ but no test/ or val/; --root must hold", FileNotFoundError)
    (folder / "train").rename(folder / "val")
    refuse("folder", folder, "has val/ but no train/", FileNotFoundError)


def test_folder_with_too_little_in_it(folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "rose").rename(folder / "roses")
    (folder / "train" / "rose").mkdir()
    refuse("folder", folder, r"folder: class rose has no training image \(1 of 2 classes\)")
    (tmp_path / "void").mkdir()
    refuse("folder", tmp_path / "void", "folder: there are no images; --root must hold some")
    save_image(tmp_path / "one" / "a" / "0.png")
    refuse("folder", tmp_path / "one", "folder: there are no test images; the split must hold some out")
