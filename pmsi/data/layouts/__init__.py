"""Layouts of data sets on disk: one table, and the listing of a folder's images before any is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pmsi.data.holdout import choose_rows
from pmsi.data.layouts.aircraft import AIRCRAFT, AIRCRAFT_FAMILY, AIRCRAFT_MANUFACTURER
from pmsi.data.layouts.base import Layout, Listing, check_listing
from pmsi.data.layouts.cars import CARS
from pmsi.data.layouts.cub import CUB
from pmsi.data.layouts.folder import FOLDER
from pmsi.runtime.files import expand_home

LAYOUTS: dict[str, Layout] = {
    "cub": CUB,
    "cars": CARS,
    "aircraft": AIRCRAFT,
    "aircraft-family": AIRCRAFT_FAMILY,
    "aircraft-manufacturer": AIRCRAFT_MANUFACTURER,
    "folder": FOLDER,
}
"""Every layout by the name that `--data` takes; a new one is a file beside this one, and a line here."""

if TYPE_CHECKING:
    LayoutName = str  # a literal cannot be made of a table for the type checker
else:
    LayoutName = Literal[tuple(LAYOUTS)]


def list_images(name: str, root: Path, hold_out: int | None = None, train_per_class: int | None = None) -> Listing:
    """List the images of a data set, checked against its tables and the disk.

    Args:
        name: what ``root`` holds:
            "cub", CUB-200-2011: ``images.txt`` and its companions beside ``images/``; or the parent of all this;
            "cars", Stanford Cars: ``cars_annos.mat`` beside ``car_ims/``; or ``cars_train/``, ``cars_test/`` and, there
            or in ``devkit/`` or ``car_devkit/``, ``cars_train_annos.mat``, ``cars_test_annos_withlabels.mat`` and
            ``cars_meta.mat``; or the parent of all this, ``stanford_cars/`` below it;
            "aircraft", FGVC-Aircraft by variant (or "aircraft-family", "aircraft-manufacturer"), trained on its
            trainval list: ``data/`` or a parent of it. The lowest 20 px of each image are a copyright line, which stays
            as it does in the paper;
            "folder": ``train/<class>/*`` with ``test/`` or ``val/``, in any usual spelling, or class folders, of which
            every fifth image is held out.
            A folder that an archive put into one of its own name (``cars_train/cars_train/``) is read there.
        root: folder of the data set.
        hold_out: n; every n-th training image of each class is listed as a test image, and the data set's own test
            images are not listed.
        train_per_class: n; only the first n training images of each class are listed, of those not held out.

    Raises:
        ValueError: unknown name, tables that disagree, a class without training images or with fewer than
            ``train_per_class``, or no test images.
        FileNotFoundError: a folder, table or listed image is not there.
    """
    if name not in LAYOUTS:
        raise ValueError(f"data: unknown data set {name!r}; choose {', '.join(LAYOUTS)}")
    root = expand_home(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{name}: there is no folder {root}; --root must be the folder of the images")
    listing = LAYOUTS[name].list_images(root)
    chosen = choose_rows([label for _, label in listing.train], listing.classes, hold_out, train_per_class)
    train, held_out = (tuple(listing.train[row] for row in rows) for rows in (chosen.train, chosen.held_out))
    test = listing.test if hold_out is None else held_out
    listing = replace(listing, train=train, test=test, rule=listing.rule + chosen.rule)
    check_listing(listing)
    return listing


def recognise_layout(root: Path) -> LayoutName:
    """Recognise the layout of a folder by names that it alone has; "folder" if there are none."""
    root = expand_home(root)
    found = (name for name, layout in LAYOUTS.items() if any((root / mark).exists() for mark in layout.marks))
    return next(found, "folder")
