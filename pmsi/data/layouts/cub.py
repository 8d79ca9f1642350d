"""CUB-200-2011: text files of ids, checked against each other and against the disk."""

from __future__ import annotations

from pathlib import Path

from pmsi.data.layouts.base import Archive, Layout, Listing, check_files, check_values, read_table, step_into

_TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


def list_cub(root: Path) -> Listing:
    """List the images of ``images.txt``, split by ``train_test_split.txt``."""
    root = locate_cub(root)
    missing = [name for name in (*_TABLES, "images") if not (root / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"cub: {root} has no {', '.join(missing)}; --root must be the folder that holds {', '.join(_TABLES)}"
            " and images/, or its parent with CUB_200_2011/"
        )
    files, class_ids, in_train, names = (read_table("cub", root / name) for name in _TABLES)
    _check_ids("image_class_labels.txt", files, class_ids)
    _check_ids("train_test_split.txt", files, in_train)
    check_values("cub: image_class_labels.txt", class_ids, names, "a class id of classes.txt")
    check_values("cub: train_test_split.txt", in_train, ("0", "1"), "0 (test) or 1 (training)")
    check_files("cub: images.txt", root / "images", files.values())
    label = {class_id: index for index, class_id in enumerate(names)}
    train, test = (
        tuple((root / "images" / file, label[class_ids[i]]) for i, file in files.items() if in_train[i] == flag)
        for flag in "10"
    )
    return Listing("cub", tuple(names.values()), train, test, "CUB-200-2011 layout, split by its train_test_split.txt")


def locate_cub(root: Path) -> Path:
    """Folder of the tables: ``root`` itself, or ``CUB_200_2011`` below it."""
    return step_into(root / "CUB_200_2011" if (root / "CUB_200_2011").is_dir() else root)


def _check_ids(name: str, files: dict[str, str], table: dict[str, str]) -> None:
    odd = [key for key in files | table if (key in files) != (key in table)]
    if odd:
        lacking = name if odd[0] in files else "images.txt"
        raise ValueError(f"cub: {lacking} lacks image {odd[0]}; images.txt and {name} disagree on {len(odd)} ids")


CUB = Layout(
    list_cub,
    marks=("images.txt", "CUB_200_2011"),
    archive=Archive(
        "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        "97eceeb196236b17998738112f37df78",
        "CUB_200_2011",
    ),
)
