"""FGVC-Aircraft: lists of images for each of three levels of labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pmsi.data.layouts.base import Archive, Layout, Listing, check_files, check_values, read_lines, read_table

_CLASSES = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}


def list_aircraft(level: str, root: Path) -> Listing:
    """List the trainval and the test images, labelled by variant, family or manufacturer."""
    name = "aircraft" if level == "variant" else f"aircraft-{level}"
    tables = [f"images_{level}_{part}.txt" for part in ("trainval", "test")]
    below = ("", "data", "fgvc-aircraft-2013b/data", "fgvc-aircraft-2013b/fgvc-aircraft-2013b/data")
    places = [root / folder for folder in below if (root / folder / "images").is_dir()]
    folder = places[0] if places else root
    missing = [table for table in (_CLASSES[level], *tables, "images") if not (folder / table).exists()]
    if missing:
        raise FileNotFoundError(
            f"{name}: {folder} has no {', '.join(missing)}; --root must be the folder that holds {_CLASSES[level]},"
            f" {', '.join(tables)} and images/, or a parent of it with data/ or fgvc-aircraft-2013b/data/"
        )
    classes = tuple(line.strip() for line in read_lines(folder / _CLASSES[level]) if line.strip())
    splits = [read_table(name, folder / table) for table in tables]
    for table, split in zip(tables, splits, strict=True):
        check_values(f"{name}: {table}", split, classes, f"a line of {_CLASSES[level]}")
    files = [f"{image}.jpg" for split in splits for image in split]
    check_files(f"{name}: {' and '.join(tables)}", folder / "images", files)
    label = {text: index for index, text in enumerate(classes)}
    train, test = (
        tuple((folder / "images" / f"{image}.jpg", label[text]) for image, text in split.items()) for split in splits
    )
    return Listing(name, classes, train, test, f"FGVC-Aircraft labelled by {level}, its trainval and test lists")


AIRCRAFT = Layout(
    partial(list_aircraft, "variant"),
    marks=("variants.txt", "data/variants.txt", "fgvc-aircraft-2013b"),
    archive=Archive(
        "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
        "d4acdd33327262359767eeaa97a4f732",
        "fgvc-aircraft-2013b",
    ),
)
AIRCRAFT_FAMILY = Layout(partial(list_aircraft, "family"))
AIRCRAFT_MANUFACTURER = Layout(partial(list_aircraft, "manufacturer"))
