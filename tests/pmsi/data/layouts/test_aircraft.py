"""FGVC-Aircraft: three levels of labels, parents of its folder, and one clear error for each fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmsi.data.layouts import list_images
from tests.helpers.dataset_files import LABELS, VARIANTS, edit, list_files, list_labels, refuse, write_aircraft


@pytest.fixture
def aircraft(tmp_path: Path) -> Path:
    return write_aircraft(tmp_path / "planes")


@pytest.mark.parametrize(
    "above", ["", "data", "fgvc-aircraft-2013b/data", "fgvc-aircraft-2013b/fgvc-aircraft-2013b/data"]
)
def test_aircraft_in_its_folder_or_a_parent(tmp_path: Path, above: str) -> None:
    root = write_aircraft(tmp_path / "planes" / above)
    listing = list_images("aircraft", tmp_path / "planes")
    assert (listing.name, listing.classes, list_labels(listing)) == ("aircraft", VARIANTS, LABELS)
    assert list_files(listing, root)[:3] == ["images/0000000.jpg", "images/0000001.jpg", "images/0000003.jpg"]
    assert list_files(listing, root)[6:] == [f"images/000000{n}.jpg" for n in (2, 5, 8)]
    assert listing.rule == "FGVC-Aircraft labelled by variant, its trainval and test lists"


def test_aircraft_by_family_and_manufacturer(aircraft: Path) -> None:
    listing = list_images("aircraft-family", aircraft)
    assert listing.classes == ("Boeing 737", "F/A-18")
    assert list_labels(listing) == ([0, 0, 1, 1, 0, 0], [0, 1, 0])
    assert (listing.name, listing.rule[:32]) == ("aircraft-family", "FGVC-Aircraft labelled by family")
    assert list_images("aircraft-manufacturer", aircraft).classes == ("B", "D", "C")
    (aircraft / "families.txt").unlink()
    assert list_labels(list_images("aircraft", aircraft)) == LABELS
    refuse("aircraft-family", aircraft, "aircraft-family: .*planes has no families.txt; --root must", FileNotFoundError)


@pytest.mark.parametrize("name", ["variants.txt", "images_variant_trainval.txt", "images_variant_test.txt", "images"])
def test_aircraft_names_what_the_folder_lacks(aircraft: Path, name: str) -> None:
    (aircraft / name).rename(aircraft / "elsewhere")
    refuse("aircraft", aircraft, f"aircraft: .*planes has no .*{name}.*; --root must be", FileNotFoundError)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "images_variant_test.txt",
            "0000005 F/A-18",
            "0000005 F/A",
            "test.txt gives image 0000005 the value 'F/A'; it",
        ),
        (
            "variants.txt",
            "737-200\n",
            "",
            "trainval.txt gives image 0000000 the value '737-200'; it must be a line of v",
        ),
        (
            "variants.txt",
            "737-200\n",
            "737-200\nConcorde\n",
            r"class Concorde has no training image \(1 of 4 classes\)",
        ),
        (
            "images_variant_test.txt",
            "0000005",
            "0000004",
            "and images_variant_test.txt lists 0000004.jpg more than onc",
        ),
        (
            "images_variant_test.txt",
            "0000005",
            "0000002",
            "images_variant_test.txt line 2 repeats id 0000002; ids must",
        ),
        ("images_variant_test.txt", "0000005 F/A-18", "0000005", "line 2 must be an id and a value, got '0000005'"),
    ],
)
def test_aircraft_tables_that_cannot_be_meant(aircraft: Path, name: str, old: str, new: str, message: str) -> None:
    edit(aircraft / name, old, new)
    refuse("aircraft", aircraft, message)


def test_aircraft_that_are_not_there_or_not_held_out(aircraft: Path) -> None:
    (aircraft / "images" / "0000008.jpg").unlink()
    refuse("aircraft", aircraft, r"names 0000008.jpg, which is not in .*images \(1 of 9 are m", FileNotFoundError)
    (aircraft / "images_variant_test.txt").write_text("")
    refuse("aircraft", aircraft, "aircraft: there are no test images")
