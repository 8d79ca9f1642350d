"""What a data set on disk holds, by its layout: listed and checked before any image is read."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torchvision.datasets.folder import IMG_EXTENSIONS

from pmsi.data.holdout import describe_first, describe_held_out, find_first, find_held_out
from pmsi.data.matfile import read_mat

LayoutName = Literal["cub", "cars", "aircraft", "aircraft-family", "aircraft-manufacturer", "folder"]
Entries = tuple[tuple[Path, int], ...]

_CUB_TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
_CARS_TABLES = ("cars_train_annos.mat", "cars_test_annos_withlabels.mat", "cars_meta.mat")
_HOLD_OUT = 5


@dataclass(frozen=True)
class Listing:
    """What a data set holds before any image is read: (file, label) of each image, and the rule of its split."""

    name: str
    classes: tuple[str, ...]
    train: Entries
    test: Entries
    rule: str


def list_images(name: str, root: Path, hold_out: int | None = None, train_per_class: int | None = None) -> Listing:
    """The images of a data set, checked against its tables and the disk.

    Args:
        name: what ``root`` holds:
            "cub", CUB-200-2011: ``images.txt`` and its companions beside ``images/``; or the parent of all this;
            "cars", Stanford Cars: ``cars_annos.mat`` beside ``car_ims/``; or ``cars_train/``, ``cars_test/`` and, there
            or in ``devkit/``, ``cars_train_annos.mat``, ``cars_test_annos_withlabels.mat`` and ``cars_meta.mat``;
            "aircraft", FGVC-Aircraft by variant (or "aircraft-family", "aircraft-manufacturer"), trained on its
            trainval list: ``data/`` or a parent of it. The lowest 20 px of each image are a copyright line, which stays
            as it does in the paper;
            "folder": ``train/<class>/*`` with ``test/`` or ``val/``, or class folders, of which every fifth image is
            held out.
        root: folder of the data set.
        hold_out: n; every n-th training image of each class is listed as a test image, and the data set's own test
            images are not listed.
        train_per_class: n; only the first n training images of each class are listed, of those not held out.

    Raises:
        ValueError: unknown name, tables that disagree, a class without training images or with fewer than
            ``train_per_class``, or no test images.
        FileNotFoundError: a folder, table or listed image is not there.
    """
    if name not in LISTERS:
        raise ValueError(f"data: unknown data set {name!r}; choose {', '.join(LISTERS)}")
    if not root.is_dir():
        raise FileNotFoundError(f"{name}: there is no folder {root}; --root must be the folder of the images")
    listing = LISTERS[name](root)
    if hold_out is not None:
        held = find_held_out([label for _, label in listing.train], hold_out)
        train, test = (
            tuple(entry for entry, is_held in zip(listing.train, held, strict=True) if is_held == part)
            for part in (False, True)
        )
        listing = replace(listing, train=train, test=test, rule=listing.rule + describe_held_out(hold_out))
    check_listing(listing)
    if train_per_class is not None:
        first = find_first([label for _, label in listing.train], train_per_class)
        train = tuple(itertools.compress(listing.train, first))
        listing = replace(listing, train=train, rule=listing.rule + describe_first(train_per_class))
    return listing


def recognise_layout(root: Path) -> LayoutName:
    """The layout of a folder, by names that it alone has; "folder" if there are none."""
    marks: dict[LayoutName, tuple[str, ...]] = {
        "cub": ("images.txt", "CUB_200_2011"),
        "cars": ("cars_annos.mat", "car_ims", "cars_train", "devkit"),
        "aircraft": ("variants.txt", "data/variants.txt", "fgvc-aircraft-2013b"),
    }
    found = (name for name, files in marks.items() if any((root / file).exists() for file in files))
    return next(found, "folder")


def check_listing(listing: Listing, when: str = "") -> None:
    """ValueError for nothing at all, nothing to test on, or a class with nothing to learn from."""
    if not listing.train and not listing.test:
        raise ValueError(
            f"{listing.name}: there are no images{when}; --root must hold some, in a folder for each class"
        )
    trained = {label for _, label in listing.train}
    empty = [name for label, name in enumerate(listing.classes) if label not in trained]
    if empty:
        many = f"{len(empty)} of {len(listing.classes)} classes"
        raise ValueError(f"{listing.name}: class {empty[0]} has no training image{when} ({many}); give it one")
    if not listing.test:
        raise ValueError(f"{listing.name}: there are no test images{when}; the split must hold some out")


def _list_cub(root: Path) -> Listing:
    """CUB-200-2011's text files, checked against each other and against the disk."""
    root = root / "CUB_200_2011" if (root / "CUB_200_2011").is_dir() else root
    missing = [name for name in (*_CUB_TABLES, "images") if not (root / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"cub: {root} has no {', '.join(missing)}; --root must be the folder that holds {', '.join(_CUB_TABLES)}"
            " and images/, or its parent with CUB_200_2011/"
        )
    files, class_ids, in_train, names = (_read_table("cub", root / name) for name in _CUB_TABLES)
    _check_ids("image_class_labels.txt", files, class_ids)
    _check_ids("train_test_split.txt", files, in_train)
    _check_values("cub: image_class_labels.txt", class_ids, names, "a class id of classes.txt")
    _check_values("cub: train_test_split.txt", in_train, ("0", "1"), "0 (test) or 1 (training)")
    _check_files("cub: images.txt", root / "images", files.values())
    label = {class_id: index for index, class_id in enumerate(names)}
    train, test = (
        tuple((root / "images" / file, label[class_ids[i]]) for i, file in files.items() if in_train[i] == flag)
        for flag in "10"
    )
    return Listing("cub", tuple(names.values()), train, test, "CUB-200-2011 layout, split by its train_test_split.txt")


def _list_cars(root: Path) -> Listing:
    """Stanford Cars as one table with a flag for the test images, or as its devkit with two folders of images."""
    tables = {name: root / name if (root / name).exists() else root / "devkit" / name for name in _CARS_TABLES}
    single = [name for name in ("cars_annos.mat", "car_ims") if not (root / name).exists()]
    devkit = [name for name, path in tables.items() if not path.exists()]
    devkit += [name for name in ("cars_train", "cars_test") if not (root / name).is_dir()]
    if single and devkit:
        raise FileNotFoundError(
            f"cars: {root} has no {', '.join(single)}; and of the other layout no {', '.join(devkit)}. --root must"
            f" hold cars_annos.mat and car_ims/, or cars_train/, cars_test/ and, there or in devkit/,"
            f" {', '.join(_CARS_TABLES)} (the devkit's own cars_test_annos.mat has no classes)"
        )
    if not single:
        path = root / "cars_annos.mat"
        classes = _read_car_names(path)
        cars = _read_cars(path, "relative_im_path", root, classes)
        _check_values("cars: cars_annos.mat", {file: flag for file, _, flag in cars}, (0, 1), "0 or 1 as `test`")
        train, test = (tuple((file, label) for file, label, flag in cars if flag == part) for part in (0, 1))
        return Listing("cars", classes, train, test, "Stanford Cars, split by the `test` of its cars_annos.mat")
    classes = _read_car_names(tables["cars_meta.mat"])
    train, test = (
        tuple((file, label) for file, label, _ in _read_cars(tables[name], "fname", root / part, classes))
        for name, part in zip(_CARS_TABLES, ("cars_train", "cars_test"), strict=False)
    )
    return Listing("cars", classes, train, test, "Stanford Cars devkit, split into its cars_train/ and cars_test/")


def _read_car_names(path: Path) -> tuple[str, ...]:
    names = read_mat(path).get("class_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"cars: {path.name} must hold `class_names`, a cell array of text")
    return tuple(names)


def _read_cars(path: Path, file_field: str, folder: Path, classes: Sequence[str]) -> list[tuple[Path, int, object]]:
    """File, label and `test` of each image; classes count from 1 there, and bounding boxes are not used."""
    cars = read_mat(path).get("annotations")
    if not isinstance(cars, list) or not all(isinstance(car, dict) and {file_field, "class"} <= {*car} for car in cars):
        raise ValueError(f"cars: {path.name} must hold `annotations`, a struct array with {file_field} and class")
    files = [str(car[file_field]) for car in cars]
    _check_files(f"cars: {path.name}", folder, files)
    class_ids = dict(zip(files, (car["class"] for car in cars), strict=True))
    _check_values(f"cars: {path.name}", class_ids, range(1, len(classes) + 1), f"a class, 1 to {len(classes)}")
    return [(folder / car[file_field], int(car["class"]) - 1, car.get("test")) for car in cars]


def _list_aircraft(level: str, root: Path) -> Listing:
    """FGVC-Aircraft's lists for one level of labels: variant, family or manufacturer."""
    name = "aircraft" if level == "variant" else f"aircraft-{level}"
    names_table = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}[level]
    tables = [f"images_{level}_{part}.txt" for part in ("trainval", "test")]
    places = [
        root / folder for folder in ("", "data", "fgvc-aircraft-2013b/data") if (root / folder / "images").is_dir()
    ]
    folder = places[0] if places else root
    missing = [table for table in (names_table, *tables, "images") if not (folder / table).exists()]
    if missing:
        raise FileNotFoundError(
            f"{name}: {folder} has no {', '.join(missing)}; --root must be the folder that holds {names_table},"
            f" {', '.join(tables)} and images/, or a parent of it with data/ or fgvc-aircraft-2013b/data/"
        )
    classes = tuple(line.strip() for line in _read_lines(folder / names_table) if line.strip())
    splits = [_read_table(name, folder / table) for table in tables]
    for table, split in zip(tables, splits, strict=True):
        _check_values(f"{name}: {table}", split, classes, f"a line of {names_table}")
    files = [f"{image}.jpg" for split in splits for image in split]
    _check_files(f"{name}: {' and '.join(tables)}", folder / "images", files)
    label = {text: index for index, text in enumerate(classes)}
    train, test = (
        tuple((folder / "images" / f"{image}.jpg", label[text]) for image, text in split.items()) for split in splits
    )
    return Listing(name, classes, train, test, f"FGVC-Aircraft labelled by {level}, its trainval and test lists")


def _list_folder(root: Path) -> Listing:
    """An ImageFolder with its own test images, or class folders of which every fifth image is held out."""
    parts = [name for name in ("train", "test", "val") if (root / name).is_dir()]
    if not parts:
        classes = _list_classes(root)
        files = _list_files(root, classes)
        train = _label([path for n, path in enumerate(paths, 1) if n % _HOLD_OUT] for paths in files)
        test = _label(paths[_HOLD_OUT - 1 :: _HOLD_OUT] for paths in files)
        rule = f"class folders, every {_HOLD_OUT}th image of each in sorted order held out as test"
        return Listing("folder", classes, train, test, rule)
    if parts[0] != "train" or len(parts) == 1:
        raise FileNotFoundError(
            f"folder: {root} has {parts[0]}/ but no {'test/ or val/' if parts[0] == 'train' else 'train/'};"
            " --root must hold train/ with test/ or val/, or class folders alone"
        )
    classes, test_classes = (_list_classes(root / part) for part in parts[:2])
    only = [", ".join(sorted({*a} - {*b})) for a, b in ((classes, test_classes), (test_classes, classes))]
    if any(only):
        raise ValueError(
            f"folder: train/ and {parts[1]}/ must hold the same classes;"
            f" train/ alone has {only[0] or 'none'}, {parts[1]}/ alone has {only[1] or 'none'}"
        )
    train, test = (_label(_list_files(root / part, classes)) for part in parts[:2])
    return Listing("folder", classes, train, test, f"image folder split into its train/ and {parts[1]}/")


def _list_classes(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def _list_files(folder: Path, classes: Sequence[str]) -> list[list[Path]]:
    return [[path for path in sorted((folder / name).rglob("*")) if _is_image(path)] for name in classes]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".")


def _label(files: Iterable[list[Path]]) -> Entries:
    return tuple((path, label) for label, paths in enumerate(files) for path in paths)


LISTERS: dict[str, Callable[[Path], Listing]] = {
    "cub": _list_cub,
    "cars": _list_cars,
    "aircraft": partial(_list_aircraft, "variant"),
    "aircraft-family": partial(_list_aircraft, "family"),
    "aircraft-manufacturer": partial(_list_aircraft, "manufacturer"),
    "folder": _list_folder,
}


def _read_lines(path: Path) -> list[str]:
    return path.read_text("utf-8", errors="replace").splitlines()


def _read_table(name: str, path: Path) -> dict[str, str]:
    """Lines of "id value", in order."""
    table: dict[str, str] = {}
    for number, line in enumerate(_read_lines(path), 1):
        fields = line.split(maxsplit=1)
        if len(fields) == 1:
            raise ValueError(f"{name}: {path.name} line {number} must be an id and a value, got {line!r}")
        if fields:
            if fields[0] in table:
                raise ValueError(f"{name}: {path.name} line {number} repeats id {fields[0]}; ids must be unique")
            table[fields[0]] = fields[1].rstrip()
    return table


def _check_ids(name: str, files: dict[str, str], table: dict[str, str]) -> None:
    odd = [key for key in files | table if (key in files) != (key in table)]
    if odd:
        lacking = name if odd[0] in files else "images.txt"
        raise ValueError(f"cub: {lacking} lacks image {odd[0]}; images.txt and {name} disagree on {len(odd)} ids")


def _check_values(table: str, values: Mapping[Any, object], allowed: Container[object], meaning: str) -> None:
    for image, value in values.items():
        if not isinstance(value, str | int | float) or value not in allowed:
            raise ValueError(f"{table} gives image {image} the value {value!r}; it must be {meaning}")


def _check_files(table: str, folder: Path, files: Collection[str]) -> None:
    """Each image is listed once and lies in ``folder``."""
    repeated = [file for file, count in Counter(files).items() if count > 1]
    if repeated:
        raise ValueError(f"{table} lists {repeated[0]} more than once; train and test must not share an image")
    absent = [file for file in files if not (folder / file).is_file()]
    if absent:
        raise FileNotFoundError(
            f"{table} names {absent[0]}, which is not in {folder} ({len(absent)} of {len(files)} are missing)"
        )
