"""Stanford Cars: both layouts, annotations that cannot be meant, and MATLAB files that are damaged or hostile."""

from __future__ import annotations

import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmsi.data.layouts import list_images, recognise_layout
from pmsi.data.layouts.cars import read_variable
from tests.helpers.dataset_files import (
    CARS,
    LABELS,
    list_cars,
    list_files,
    list_labels,
    refuse,
    write_cars,
    write_cars_devkit,
    write_mat,
)


@pytest.fixture
def cars(tmp_path: Path) -> Path:
    return write_cars(tmp_path / "cars")


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    return write_cars_devkit(tmp_path / "cars")


def test_cars_in_one_table(cars: Path) -> None:
    listing = list_images("cars", cars)
    assert (listing.name, listing.classes, list_labels(listing)) == ("cars", CARS, LABELS)
    assert list_files(listing, cars)[:3] == ["car_ims/000001.jpg", "car_ims/000002.jpg", "car_ims/000004.jpg"]
    assert list_files(listing, cars)[6:] == [f"car_ims/00000{n}.jpg" for n in (3, 6, 9)]
    assert listing.rule == "Stanford Cars, split by the `test` of its cars_annos.mat"


def test_cars_in_the_devkit(devkit: Path) -> None:
    listing = list_images("cars", devkit)
    assert (listing.name, listing.classes, list_labels(listing)) == ("cars", CARS, LABELS)
    assert list_files(listing, devkit) == [
        *(f"cars_train/{n:05}.jpg" for n in range(1, 7)),
        *(f"cars_test/{n:05}.jpg" for n in range(1, 4)),
    ]
    assert listing.rule == "Stanford Cars devkit, split into its cars_train/ and cars_test/"
    for table in sorted((devkit / "devkit").iterdir()):  # some copies have one or all of them beside the images
        table.rename(devkit / table.name)
        assert list_images("cars", devkit) == listing


def nest(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    folder.mkdir()
    folder.with_name("moved").rename(folder / folder.name)


@pytest.mark.parametrize("place", ["devkit", "car_devkit", "car_devkit/devkit", "."])
def test_cars_as_kaggle_has_them(devkit: Path, place: str) -> None:
    wanted = list_labels(list_images("cars", devkit))
    (devkit / "devkit").rename(devkit / "tables")
    for table in sorted((devkit / "tables").iterdir()):
        copy = table.name.replace("withlabels.mat", "withlabels (1).mat")
        (devkit / place).mkdir(parents=True, exist_ok=True)
        table.rename(devkit / place / copy)
    (devkit / "cars_annos.mat").touch()  # the table of car_ims/, which is not there
    for part in ("cars_train", "cars_test"):
        nest(devkit / part)
    assert list_labels(list_images("cars", devkit)) == wanted
    assert recognise_layout(devkit) == "cars"


@pytest.mark.usefixtures("devkit")
def test_cars_as_torchvision_has_them(cars: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    cars.rename(tmp_path / "root" / "stanford_cars")
    assert recognise_layout(tmp_path / "root") == "cars"
    assert list_labels(list_images("cars", tmp_path / "root")) == LABELS
    (tmp_path / "root/stanford_cars/cars_annos.mat").unlink()
    assert list_labels(list_images("cars", tmp_path / "root")) == LABELS


def test_cars_in_one_table_with_nested_images(cars: Path) -> None:
    nest(cars / "car_ims")
    assert list_labels(list_images("cars", cars)) == LABELS


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


def test_a_single_car_needs_no_list(cars: Path) -> None:
    """MATLAB squeezes arrays of one element."""
    write_mat(cars / "cars_annos.mat", annotations=list_cars(cars)[:1], class_names=[CARS[0]])
    refuse("cars", cars, "cars: there are no test images; the split must hold some out")


def test_names_may_be_of_any_script(cars: Path) -> None:
    write_mat(cars / "cars_annos.mat", annotations=list_cars(cars), class_names=["\u0160koda", *CARS[1:]])
    assert list_images("cars", cars).classes[0] == "\u0160koda"


def make_part(kind: int, values: bytes) -> bytes:
    return struct.pack("<II", kind, len(values)) + values + bytes(-len(values) % 8)


def write_matrix(path: Path, family: int, kind: int, values: bytes, count: int) -> None:
    """A MATLAB file of one matrix "a" of 1 x ``count``, whose values are of any kind."""
    head = make_part(6, struct.pack("<II", family, 0)) + make_part(5, struct.pack("<ii", 1, count)) + make_part(1, b"a")
    path.write_bytes(b"".ljust(124) + b"\0\1IM" + make_part(14, head + make_part(kind, values)))


TEXTS = {1: "ascii", 2: "ascii", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le", 18: "utf-32-le"}
NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}


def test_values_of_every_kind_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    for kind, encoding in TEXTS.items():
        write_matrix(path, 4, kind, "Fiat".encode(encoding), 4)
        assert read_variable(path, "a") == ["Fiat"]
    for kind, dtype in NUMBERS.items():
        values = np.array([7, 0, 100], dtype)
        write_matrix(path, 6, kind, values.tobytes(), 3)
        assert read_variable(path, "a") == [7, 0, 100]
        write_matrix(path, 6, kind, values.tobytes()[:-1], 3)
        with pytest.raises(ValueError, match="a matrix of 1 x 3 does not hold what it says"):
            read_variable(path, "a")
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    with pytest.raises(ValueError, match="a part is longer than what holds it"):
        read_variable(path, "a")
    path.write_bytes(content[:128] + make_part(9, bytes(8)))
    with pytest.raises(ValueError, match="it holds a part of the unknown kind 9"):
        read_variable(path, "a")
    write_matrix(path, 4, 9, bytes(16), 2)
    with pytest.raises(ValueError, match="a matrix of 1 x 2 does not hold what it says"):
        read_variable(path, "a")


def test_without_scipy_the_extra_is_named(cars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    refuse("cars", cars, r"^cars: reading cars_annos.mat needs scipy: pip install 'mosaicaug\[cars\]'$")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + b"\x89HDF\r\n\x1a\n" * 9,
        b"".ljust(126) + b"IM" + struct.pack("<II4s4x", 15, 4, b"none"),
        b"".ljust(124) + b"\0\1IM" + struct.pack("<II4s4x", 15, 4, b"none"),
        b"".ljust(124) + b"\0\1IM" + struct.pack("<IIII", 14, 8, 6, 0),
        pickle.dumps(range(9)),
    ],
)
def test_other_files_are_refused_by_name(cars: Path, content: bytes) -> None:
    (cars / "cars_annos.mat").write_bytes(content)
    refuse("cars", cars, r"cars_annos.mat is damaged, or no MATLAB file of level 5 \(.*\); save it as -v7")


def test_a_file_far_too_large_is_refused_unread(cars: Path) -> None:
    with (cars / "cars_annos.mat").open("r+b") as file:
        file.truncate(200_000_000)  # a hole, of which the disk holds nothing
    refuse("cars", cars, "cars_annos.mat has over 20 MB, which is no list of annotations")


@pytest.mark.parametrize("compress", [False, True])
def test_damage_anywhere_gives_one_clear_error_or_none(cars: Path, compress: bool) -> None:
    """Cut anywhere, or with any one byte changed, a file is refused by name, or what it lists is checked as ever."""
    path = cars / "cars_annos.mat"
    write_mat(path, compress=compress, class_names=[*CARS], annotations=list_cars(cars)[:2])
    good = path.read_bytes()
    cut = [good[:length] for length in range(130, len(good), 61)]
    changed = [good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :] for place in range(124, len(good), 7)]
    refused = 0
    for content in cut + changed:
        path.write_bytes(content)
        try:
            list_images("cars", cars)
        except (ValueError, FileNotFoundError) as error:
            refused += "cars_annos.mat is damaged" in str(error)
    assert refused > 10
