"""CUB-200-2011: its tables in every order they may come in, and one clear error for each fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmsi.data.layouts import list_images
from tests.helpers.dataset_files import CLASSES, LABELS, edit, list_files, list_labels, refuse, write_cub, write_lines

TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    return write_cub(tmp_path / "birds")


def test_cub_in_its_folder_or_the_parent(cub: Path) -> None:
    listing = list_images("cub", cub)
    assert (listing.name, listing.classes, list_labels(listing)) == ("cub", CLASSES, LABELS)
    assert list_files(listing, cub)[:2] == ["images/001.Red_Knot/0.png", "images/001.Red_Knot/2.png"]
    assert listing.rule == "CUB-200-2011 layout, split by its train_test_split.txt"
    (cub.parent / "download").mkdir()
    cub.rename(cub.parent / "download" / "CUB_200_2011")
    assert list_labels(list_images("cub", cub.parent / "download")) == LABELS
    (cub.parent / "CUB_200_2011").mkdir()
    (cub.parent / "download" / "CUB_200_2011").rename(cub.parent / "CUB_200_2011" / "CUB_200_2011")
    for root in (cub.parent / "CUB_200_2011", cub.parent):
        assert list_labels(list_images("cub", root)) == LABELS


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_cub_tables_that_an_editor_wrote(cub: Path, encoding: str, end: str) -> None:
    for name in TABLES:
        (cub / name).write_bytes((cub / name).read_text().replace("\n", end).encode(encoding))
    listing = list_images("cub", cub)
    assert (listing.classes, list_labels(listing)) == (CLASSES, LABELS)


def test_cub_tables_may_come_in_any_order_with_any_class_ids(cub: Path) -> None:
    write_lines(cub / "train_test_split.txt", *(f"{i + 1} {int(i % 3 != 1)}" for i in reversed(range(9))), "")
    edit(cub / "classes.txt", "3 003", "200 003")
    edit(cub / "image_class_labels.txt", "7 3\n8 3\n9 3\n", "9 200\n8 200\n7  200 \n")
    assert list_labels(list_images("cub", cub)) == LABELS


@pytest.mark.parametrize("name", [*TABLES, "images"])
def test_cub_names_what_the_folder_lacks(cub: Path, name: str) -> None:
    (cub / name).rename(cub / "elsewhere")
    refuse("cub", cub, rf"cub: .*birds has no {name}; --root must be the folder that holds", FileNotFoundError)


def test_cub_names_a_listed_image_that_is_not_there(cub: Path) -> None:
    (cub / "images" / CLASSES[1]).rename(cub / "images" / "elsewhere")
    refuse("cub", cub, r"names 002.Blue_Jay/0.png, which is not in .*\(3 of 9 are missing\)", FileNotFoundError)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("image_class_labels.txt", "9 3\n", "", "image_class_labels.txt lacks image 9; .* disagree on 1 ids"),
        ("train_test_split.txt", "1 1\n2 0\n", "", "train_test_split.txt lacks image 1; .* disagree on 2 ids"),
        ("images.txt", "9 003.Green_Heron/2.png", "", "images.txt lacks image 9; images.txt and image_class"),
        ("images.txt", "9 003", "8 003", "images.txt line 9 repeats id 8; ids must be unique"),
        ("images.txt", "4 002.Blue_Jay/0.png", "4", "images.txt line 4 must be an id and a value, got '4'"),
        ("images.txt", "Knot/1.png", "Knot/0.png", "images.txt lists 001.Red_Knot/0.png more than once"),
        ("classes.txt", "3 003.Green_Heron", "", "image 7 the value '3'; it must be a class id of classes.txt"),
        (
            "train_test_split.txt",
            "4 1",
            "4 2",
            "cub: train_test_split.txt gives image 4 the value '2'; it must be 0 .test. or 1",
        ),
        ("train_test_split.txt", "4 1\n5 0\n6 1", "4 0\n5 0\n6 0", "class 002.Blue_Jay has no training image"),
        ("classes.txt", "1 001", "4 004.Dodo\n1 001", r"class 004.Dodo has no training image \(1 of 4 classes\)"),
    ],
)
def test_cub_tables_that_cannot_be_meant(cub: Path, name: str, old: str, new: str, message: str) -> None:
    edit(cub / name, old, new)
    refuse("cub", cub, message)


def test_cub_with_nothing_to_test_on_or_nothing_at_all(cub: Path) -> None:
    write_lines(cub / "train_test_split.txt", *(f"{i} 1" for i in range(1, 10)))
    refuse("cub", cub, "cub: there are no test images; the split must hold some out")
    for name in TABLES:
        (cub / name).write_text("")
    refuse("cub", cub, "cub: there are no images; --root must hold some")
