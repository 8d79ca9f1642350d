"""Listing data sets: each layout, what may vary in it, and one clear error for each way in which it can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from pmsi.data.layouts import LISTERS, LayoutName, Listing, list_images, recognise_layout
from tests.helpers.dataset_files import (
    CARS,
    CLASSES,
    VARIANTS,
    edit,
    list_cars,
    save_image,
    write_aircraft,
    write_cars,
    write_cars_devkit,
    write_cub,
    write_folder,
    write_lines,
    write_mat,
)

TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
LABELS = ([0, 0, 1, 1, 2, 2], [0, 1, 2])


@pytest.fixture(autouse=True)
def _no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.Image.open", lambda path: pytest.fail(f"{path} was read"))


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    return write_cub(tmp_path / "birds")


@pytest.fixture
def cars(tmp_path: Path) -> Path:
    return write_cars(tmp_path / "cars")


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    return write_cars_devkit(tmp_path / "cars")


@pytest.fixture
def aircraft(tmp_path: Path) -> Path:
    return write_aircraft(tmp_path / "planes")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "flowers")


def labels(listing: Listing) -> tuple[list[int], list[int]]:
    return [label for _, label in listing.train], [label for _, label in listing.test]


def files(listing: Listing, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path, _ in listing.train + listing.test]


def refuse(name: str, root: Path, text: str, kind: type[Exception] = ValueError) -> None:
    with pytest.raises(kind, match=text):
        list_images(name, root)


def test_every_name_has_a_lister(tmp_path: Path) -> None:
    assert tuple(LISTERS) == get_args(LayoutName)
    refuse("dogs", tmp_path, "data: unknown data set 'dogs'; choose cub, cars, aircraft, aircraft-family, ")
    for name in LISTERS:
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


def test_cub_in_its_folder_or_the_parent(cub: Path) -> None:
    listing = list_images("cub", cub)
    assert (listing.name, listing.classes, labels(listing)) == ("cub", CLASSES, LABELS)
    assert files(listing, cub)[:2] == ["images/001.Red_Knot/0.png", "images/001.Red_Knot/2.png"]
    assert listing.rule == "CUB-200-2011 layout, split by its train_test_split.txt"
    (cub.parent / "download").mkdir()
    cub.rename(cub.parent / "download" / "CUB_200_2011")
    assert labels(list_images("cub", cub.parent / "download")) == LABELS


def test_cub_tables_may_come_in_any_order_with_any_class_ids(cub: Path) -> None:
    write_lines(cub / "train_test_split.txt", *(f"{i + 1} {int(i % 3 != 1)}" for i in reversed(range(9))), "")
    edit(cub / "classes.txt", "3 003", "200 003")
    edit(cub / "image_class_labels.txt", "7 3\n8 3\n9 3\n", "9 200\n8 200\n7  200 \n")
    assert labels(list_images("cub", cub)) == LABELS


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
        ("train_test_split.txt", "4 1", "4 2", "image 4 the value '2'; it must be 0 .test. or 1 .training."),
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


def test_cars_in_one_table(cars: Path) -> None:
    listing = list_images("cars", cars)
    assert (listing.name, listing.classes, labels(listing)) == ("cars", CARS, LABELS)
    assert files(listing, cars)[:3] == ["car_ims/000001.jpg", "car_ims/000002.jpg", "car_ims/000004.jpg"]
    assert files(listing, cars)[6:] == [f"car_ims/00000{n}.jpg" for n in (3, 6, 9)]
    assert listing.rule == "Stanford Cars, split by the `test` of its cars_annos.mat"


def test_cars_in_the_devkit(devkit: Path) -> None:
    listing = list_images("cars", devkit)
    assert (listing.name, listing.classes, labels(listing)) == ("cars", CARS, LABELS)
    assert files(listing, devkit) == [
        *(f"cars_train/{n:05}.jpg" for n in range(1, 7)),
        *(f"cars_test/{n:05}.jpg" for n in range(1, 4)),
    ]
    assert listing.rule == "Stanford Cars devkit, split into its cars_train/ and cars_test/"
    for table in sorted((devkit / "devkit").iterdir()):  # some copies have one or all of them beside the images
        table.rename(devkit / table.name)
        assert list_images("cars", devkit) == listing


def test_cars_names_what_the_folder_lacks(cars: Path, tmp_path: Path) -> None:
    (cars / "cars_annos.mat").unlink()
    text = r"has no cars_annos.mat; and of the other layout no cars_train_annos.mat, .*cars_train, cars_test. --root"
    refuse("cars", cars, text, FileNotFoundError)
    devkit = write_cars_devkit(tmp_path / "other")
    (devkit / "devkit" / "cars_test_annos_withlabels.mat").rename(devkit / "devkit" / "cars_test_annos.mat")
    text = (
        r"has no cars_annos.mat, car_ims; and of the other layout no cars_test_annos_withlabels.mat\. .*"
        r"cars_test_annos.mat has no classes\)"
    )
    refuse("cars", devkit, text, FileNotFoundError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": 4}, r"cars_annos.mat gives image car_ims/000005.jpg the value 4; it must be a class, 1 to 3"),
        ({"class": 0}, "the value 0; it must be a class, 1 to 3"),
        ({"class": 1.5}, "the value 1.5; it must be a class, 1 to 3"),
        ({"class": "2"}, "the value '2'; it must be a class, 1 to 3"),
        ({"class": None}, "the value array.*; it must be a class, 1 to 3"),
        ({"test": 2}, "gives image .*000005.jpg the value 2; it must be 0 or 1 as `test`"),
        ({"relative_im_path": "car_ims/000001.jpg"}, "lists car_ims/000001.jpg more than once; train and test must"),
    ],
)
def test_a_car_that_cannot_be_meant(cars: Path, change: dict[str, Any], message: str) -> None:
    records = list_cars(cars)
    records[4] |= change
    refuse("cars", write_cars(cars, records), message)


def test_cars_that_are_not_there_or_have_no_test(cars: Path, devkit: Path) -> None:
    assert cars == devkit  # both layouts in one folder: the single table is taken
    (cars / "car_ims" / "000005.jpg").unlink()
    text = r"cars: cars_annos.mat names car_ims/000005.jpg, which is not in .*cars \(1 of 9 are missing\)"
    refuse("cars", cars, text, FileNotFoundError)
    (cars / "cars_annos.mat").unlink()
    (cars / "cars_test" / "00002.jpg").unlink()
    text = r"cars_test_annos_withlabels.mat names 00002.jpg, which is not in .*cars_test \(1 of 3"
    refuse("cars", cars, text, FileNotFoundError)


def test_cars_without_a_test_flag_or_an_odd_number_of_them(cars: Path) -> None:
    records = [{**record, "test": 0} for record in list_cars(cars)]
    refuse("cars", write_cars(cars, records), "cars: there are no test images")
    for record in records:
        del record["test"]
    refuse("cars", write_cars(cars, records), "the value None; it must be 0 or 1 as `test`")
    for record in records:
        del record["class"]
    refuse("cars", write_cars(cars, records), "`annotations`, a struct array with relative_im_path and class")


def test_cars_tables_that_hold_something_else(cars: Path) -> None:
    write_mat(cars / "cars_annos.mat", class_names=[*CARS])
    refuse("cars", cars, "cars: cars_annos.mat must hold `annotations`, a struct array with relative_im_path")
    write_mat(cars / "cars_annos.mat", class_names=[1, 2])
    refuse("cars", cars, "cars: cars_annos.mat must hold `class_names`, a cell array of text")
    (cars / "cars_annos.mat").write_bytes(b"<html>404</html>")
    refuse("cars", cars, "cars_annos.mat is damaged, or no MATLAB file of level 5")


@pytest.mark.parametrize("above", ["", "data", "fgvc-aircraft-2013b/data"])
def test_aircraft_in_its_folder_or_a_parent(tmp_path: Path, above: str) -> None:
    root = write_aircraft(tmp_path / "planes" / above)
    listing = list_images("aircraft", tmp_path / "planes")
    assert (listing.name, listing.classes, labels(listing)) == ("aircraft", VARIANTS, LABELS)
    assert files(listing, root)[:3] == ["images/0000000.jpg", "images/0000001.jpg", "images/0000003.jpg"]
    assert files(listing, root)[6:] == [f"images/000000{n}.jpg" for n in (2, 5, 8)]
    assert listing.rule == "FGVC-Aircraft labelled by variant, its trainval and test lists"


def test_aircraft_by_family_and_manufacturer(aircraft: Path) -> None:
    listing = list_images("aircraft-family", aircraft)
    assert listing.classes == ("Boeing 737", "F/A-18")
    assert labels(listing) == ([0, 0, 1, 1, 0, 0], [0, 1, 0])
    assert (listing.name, listing.rule[:32]) == ("aircraft-family", "FGVC-Aircraft labelled by family")
    assert list_images("aircraft-manufacturer", aircraft).classes == ("B", "D", "C")
    (aircraft / "families.txt").unlink()
    assert labels(list_images("aircraft", aircraft)) == LABELS
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


def test_folder_takes_val_where_there_is_no_test(folder: Path) -> None:
    save_image(folder / "val" / "iris" / "0.jpg")
    assert list_images("folder", folder).rule == "image folder split into its train/ and test/"
    (folder / "val").rename(folder / "spare")
    (folder / "test").rename(folder / "val")
    listing = list_images("folder", folder)
    assert labels(listing) == ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1])
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
