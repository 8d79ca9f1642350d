"""`pmsi data check` and `pmsi data get`: their settings, and what they print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pmsi.cli.console import say
from pmsi.data.check import Inspection, Pair, inspect_images, write_sheet
from pmsi.data.download import ArchiveName, download_dataset
from pmsi.data.layouts import LayoutName, list_images, recognise_layout
from pmsi.runtime.files import escape

_SHOWN = 10  # lines of a list


@dataclass(frozen=True)
class Check:
    """Read every image of a data set; the exit code is 1 if something is wrong with it."""

    root: Annotated[Path, tyro.conf.Positional]
    """Folder of the data set, as in training."""
    data: LayoutName | None = None
    """Layout, as in training; by default what the names in the folder say."""
    sheet: Path | None = None
    """Where to write a picture of some classes, as PNG; by default none is written."""
    workers: int | None = None
    """Threads that decode images; by default one for each core that may be used."""


@dataclass(frozen=True)
class Get:
    """Download a data set of the paper from where it is published, check and unpack it."""

    name: Annotated[ArchiveName, tyro.conf.Positional]
    """Which; Stanford Cars can no longer be downloaded, and it is said where to look."""
    root: Path = Path("data")
    """Folder that gets the archive and what it unpacks to; then the --root of the data set."""


@dataclass(frozen=True)
class Data:
    """Check a data set, or download one."""

    command: Annotated[
        Annotated[Check, tyro.conf.subcommand("check")] | Annotated[Get, tyro.conf.subcommand("get")],
        tyro.conf.arg(name=""),
    ]


def run_data(command: Data, console: Console, progress: Callable[[str, int, int], None]) -> int:
    """Carry out one of the two; returns the exit code, 1 if a data set has something wrong with it."""
    chosen = command.command
    root = chosen.root
    if isinstance(chosen, Get):
        folder = download_dataset(chosen.name, root, progress)
        listing = list_images(chosen.name, root)
        say(console, f"{folder.resolve()}: {len(listing.train):,} training and {len(listing.test):,} test images")
        return 0
    listing = list_images(chosen.data or recognise_layout(root), root)
    checked = inspect_images(listing, progress, chosen.workers)
    print_checked(checked, console, root)
    if chosen.sheet is not None:
        write_sheet(listing, chosen.sheet)
        say(console, f"Contact sheet: {chosen.sheet.resolve()}")
    return 1 if checked.findings else 0


def print_checked(checked: Inspection, console: Console, root: Path) -> None:
    """A table of what is there, lists of what is to be looked at, and one line that says whether anything is wrong."""
    listing = checked.listing
    table = Table(title=Text(escape(listing.rule)), title_justify="left", show_header=False)
    rows = {
        "classes": f"{len(listing.classes):,}",
        "images": f"{len(listing.train):,} training, {len(listing.test):,} test",
        "Table I": checked.table,
        "height": _describe_spread(checked.heights),
        "width": _describe_spread(checked.widths),
        "fewest images": "\n".join(
            escape(f"{name}: {train} training, {test} test") for name, train, test in checked.fewest
        ),
    }
    for name, text in rows.items():
        table.add_row(Text(name), Text(text))
    console.print(table)

    def name_pair(pair: Pair) -> str:
        first, second = (path.relative_to(root) for path in (pair.first, pair.second))
        return f"{first} and {second}: {pair.likeness}{', under two labels' if pair.labels_differ else ''}"

    lists = {
        "Unreadable": [f"{path.relative_to(root)}: {reason}" for path, reason in checked.unreadable],
        "Left out": [f"{path.relative_to(root)}{'/' if path.is_dir() else ''}" for path in listing.left_out],
        "Of more than 8 bits, scaled to 8": [f"{path.relative_to(root)}: {text}" for path, text in checked.deep],
        "In training and test": [name_pair(pair) for pair in checked.shared],
        "Twice in training or twice in test": [name_pair(pair) for pair in checked.repeated],
        "A training and a test image that look alike; is it one picture?": [name_pair(pair) for pair in checked.alike],
    }
    for title, lines in lists.items():
        if lines:
            more = [f"and {len(lines) - _SHOWN:,} more"] if len(lines) > _SHOWN else []
            say(console, f"{title} ({len(lines):,}):")
            for line in [*lines[:_SHOWN], *more]:
                say(console, f"  {line}")
    found = "; ".join(checked.findings)
    say(console, f"Wrong: {found}." if found else "Nothing is wrong.")


def _describe_spread(lengths: Sequence[int]) -> str:
    if not lengths:
        return "unknown"
    return f"{min(lengths):,} to {max(lengths):,} px, median {median(lengths):,.0f}"
