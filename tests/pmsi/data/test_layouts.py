"""Table of layouts: names, recognition, and images that are listed without being read."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from pmsi.data.dataset import DataName
from pmsi.data.download import ArchiveName
from pmsi.data.layouts import LAYOUTS, LayoutName, list_images, recognise_layout
from pmsi.data.layouts.base import Layout
from pmsi.paper import TABLES
from tests.helpers.dataset_files import refuse, write_aircraft, write_cars, write_cars_devkit, write_cub, write_folder


@pytest.fixture(autouse=True)
def _no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.Image.open", lambda path: pytest.fail(f"{path} was read"))


def test_every_name_has_a_lister(tmp_path: Path) -> None:
    assert tuple(LAYOUTS) == get_args(LayoutName)
    refuse("dogs", tmp_path, "data: unknown data set 'dogs'; choose cub, cars, aircraft, aircraft-family, ")
    for name in LAYOUTS:
        refuse(name, tmp_path / "nowhere", f"{name}: there is no folder .*nowhere; --root must", FileNotFoundError)


def test_layouts_are_recognised(tmp_path: Path) -> None:
    made: dict[LayoutName, list[Path]] = {
        "cub": [write_cub(tmp_path / "a" / "CUB_200_2011"), tmp_path / "a"],
        "cars": [write_cars(tmp_path / "b"), write_cars_devkit(tmp_path / "c")],
        "aircraft": [
            write_aircraft(tmp_path / "d"),
            write_aircraft(tmp_path / "e" / "data").parent,
            write_aircraft(tmp_path / "f" / "fgvc-aircraft-2013b" / "data").parents[1],
        ],
        "folder": [write_folder(tmp_path / "g")],
    }
    for name, roots in made.items():
        for root in roots:
            assert recognise_layout(root) == name, root
            list_images(name, root)


def test_one_name_is_enough_to_recognise_a_layout(tmp_path: Path) -> None:
    marks: dict[LayoutName, tuple[str, ...]] = {
        "cub": ("images.txt", "CUB_200_2011"),
        "cars": ("cars_annos.mat", "car_ims", "cars_train", "devkit", "car_devkit", "stanford_cars"),
        "aircraft": ("variants.txt", "data/variants.txt", "fgvc-aircraft-2013b"),
        "folder": ("birds", "train"),
    }
    for name, paths in marks.items():
        for path in paths:
            (tmp_path / path.replace("/", " ") / path).mkdir(parents=True)
            assert recognise_layout(tmp_path / path.replace("/", " ")) == name


def test_other_names_follow_from_the_table() -> None:
    assert get_args(DataName) == ("typefaces", *LAYOUTS)
    assert get_args(ArchiveName) == ("cub", "cars", "aircraft")
    assert TABLES[1].rows.keys() <= LAYOUTS.keys()


def test_a_new_layout_is_one_line_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flowers = Layout(LAYOUTS["folder"].list_images, marks=("flowers.txt",))
    monkeypatch.setitem(LAYOUTS, "flowers", flowers)
    root = write_folder(tmp_path / "g")
    assert recognise_layout(root) == "folder"
    (root / "flowers.txt").touch()
    assert recognise_layout(root) == "flowers"
    assert list_images("flowers", root) == list_images("folder", root)
