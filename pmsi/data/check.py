"""Inspection of a data set: counts, unreadable files, images that occur twice, and a contact sheet."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pmsi.data.decoding import Progress, read_image
from pmsi.data.layouts.base import Entries, Listing
from pmsi.data.pixels import is_deep, open_image
from pmsi.paper import TABLES
from pmsi.runtime.cores import count_workers
from pmsi.runtime.files import describe_error, escape, replace_file

_SIDE = 16  # of the small grey picture that stands for an image, which has _SIDE^2 bits
# Bits in which two outlines may differ and still be taken for one picture: a new JPEG of half the size differs in 5 to
# 25, and of 2,903 test birds 3 are this near to a training bird (29, 30, 44: the same photographs), the next is at 59.
_ALIKE = 48
_BLOCK = 1024  # outlines that are compared at once with all others
_DARK = 16  # of 255: all that 12 bits of 16 can reach
_FEWEST = 5  # classes that are named
_SHEET = (8, 4)  # classes, and images of each split, on a contact sheet


class Facts(NamedTuple):
    """Facts of an image that could be read.

    Args:
        file, pixels: SHA-256 of the file, and of the size and the decoded RGB pixels.
        size: (height, width), px.
        outline: uint8 ``[32]``, bits that say where a small grey picture of it grows brighter from left to right.
        deep: words on an image of more than 8 bits; empty for others.
    """

    file: str
    pixels: str
    size: tuple[int, int]
    outline: NDArray[np.uint8]
    deep: str = ""


class Pair(NamedTuple):
    """Pair of images that show the same, its likeness, and whether the labels differ."""

    first: Path
    second: Path
    likeness: str
    labels_differ: bool


@dataclass(frozen=True)
class Inspection:
    """Findings of `inspect_images`.

    Args:
        listing: of the data set.
        table: one sentence on the paper's Table I; ``fits_table`` is False where a full data set has other counts.
        unreadable: (file, reason).
        shared: pairs of a training and a test image with the same bytes or the same pixels.
        repeated: such pairs within a split.
        alike: pairs of a training and a test image that look alike: to be looked at, not counted as wrong.
        deep: (file, words) of images of more than 8 bits, which are scaled to 8.
        heights, widths: px, of each image that could be read.
        fewest: (class, training images, test images) of those with fewest training images.
    """

    listing: Listing
    table: str
    fits_table: bool
    unreadable: tuple[tuple[Path, str], ...]
    shared: tuple[Pair, ...]
    repeated: tuple[Pair, ...]
    alike: tuple[Pair, ...]
    deep: tuple[tuple[Path, str], ...]
    heights: tuple[int, ...]
    widths: tuple[int, ...]
    fewest: tuple[tuple[str, int, int], ...]

    @property
    def findings(self) -> tuple[str, ...]:
        """Everything that is wrong, one line each."""
        counted = (
            (len(self.unreadable), "unreadable"),
            (len(self.shared), "in both training and test"),
            (sum(pair.labels_differ for pair in self.repeated), "in one split under two labels"),
        )
        return (() if self.fits_table else (self.table,)) + tuple(f"{n:,} {what}" for n, what in counted if n)


def inspect_images(listing: Listing, progress: Progress | None = None, workers: int | None = None) -> Inspection:
    """Decode every image on all cores, and compare counts, pixels and outlines.

    Args:
        listing: from `pmsi.data.layouts.list_images`.
        progress: called with (what, done, total) after each image.
        workers: threads that decode; None is a thread for each core.
    """
    report = partial(progress or (lambda *_: None), f"{listing.name}: checking images")
    entries, split = listing.train + listing.test, len(listing.train)
    known: dict[int, Facts] = {}  # by place in `entries`
    unreadable = []
    for row, found in enumerate(_inspect_all([path for path, _ in entries], workers)):
        if isinstance(found, Facts):
            known[row] = found
        else:
            unreadable.append((entries[row][0], found))
        report(row + 1, len(entries))
    same = _pair_identical(known)
    pairs = {rows: _make_pair(entries, rows, likeness) for rows, likeness in same.items()}
    alike = [_make_pair(entries, *pair) for pair in _pair_alike(known, split) if pair[0] not in same]
    counts = [Counter(label for _, label in part) for part in (listing.train, listing.test)]
    rare = sorted(range(len(listing.classes)), key=lambda label: (counts[0][label], counts[1][label], label))
    table, fits = compare_with_table(listing)
    return Inspection(
        listing=listing,
        table=table,
        fits_table=fits,
        unreadable=tuple(unreadable),
        shared=tuple(pair for rows, pair in pairs.items() if rows[0] < split <= rows[1]),
        repeated=tuple(pair for rows, pair in pairs.items() if not rows[0] < split <= rows[1]),
        alike=tuple(alike),
        deep=tuple((entries[row][0], facts.deep) for row, facts in known.items() if facts.deep),
        heights=tuple(facts.size[0] for facts in known.values()),
        widths=tuple(facts.size[1] for facts in known.values()),
        fewest=tuple((listing.classes[label], counts[0][label], counts[1][label]) for label in rare[:_FEWEST]),
    )


def compare_with_table(listing: Listing) -> tuple[str, bool]:
    """Compare the counts with the paper's Table I.

    Returns:
        One sentence, and False if this is a whole data set of the table with other counts.
    """
    counts = len(listing.classes), len(listing.train), len(listing.test)
    if listing.name not in TABLES[1].rows:
        return "not a data set of the paper's Table I", True
    wanted = tuple(int(TABLES[1].figure(listing.name, column)) for column in TABLES[1].columns)
    if counts == wanted:
        return "matches the paper's Table I", True
    text = "{:,} classes, {:,} training and {:,} test images"
    if counts[0] < wanted[0]:
        return f"a part of what the paper's Table I has ({text.format(*wanted)})", True
    return f"{text.format(*counts)}, where the paper's Table I has {text.format(*wanted)}", False


def write_sheet(listing: Listing, path: Path) -> None:
    """Write a PNG of some classes, evenly spread: a row each, training images on the left, test images on the right."""
    rows, columns = min(_SHEET[0], len(listing.classes)), _SHEET[1]
    chosen = [round(row * (len(listing.classes) - 1) / max(rows - 1, 1)) for row in range(rows)]
    figure = Figure(figsize=(1.5 * 2 * columns, 1.7 * rows), layout="constrained")
    axes = figure.subplots(rows, 2 * columns)
    for row, label in zip(axes, chosen, strict=True):
        for first, part in ((0, listing.train), (columns, listing.test)):
            paths = [path for path, of in part if of == label]
            for axis, image in zip(row[first : first + columns], _list_readable(paths), strict=False):
                axis.imshow(image)
        row[0].set_title(f"{escape(listing.classes[label])}, training", loc="left", fontsize=9, parse_math=False)
        row[columns].set_title("test", loc="left", fontsize=9)
        for axis in row:
            axis.axis("off")
    replace_file(path, partial(figure.savefig, format="png", dpi=100))


def _list_readable(paths: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    for path in paths:
        try:
            yield read_image(path).permute(1, 2, 0).numpy()  # [h, w, 3]
        except Exception:  # Pillow's decoders raise anything; `inspect_images` says what it was
            continue


def _inspect_all(paths: Sequence[Path], workers: int | None) -> Iterator[Facts | str]:
    """Inspect every file on all cores, in order; for one that cannot be read, the reason."""
    with ThreadPoolExecutor(max(1, count_workers(workers))) as pool:
        yield from pool.map(_inspect, paths)


def _inspect(path: Path) -> Facts | str:
    try:
        pixels = read_image(path)
        with open_image(path) as opened:
            deep = _describe_depth(opened, pixels)
    except Exception as error:  # Pillow's decoders raise anything from SyntaxError to struct.error
        return describe_error(error)
    height, width = pixels.shape[1:]
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    grey = np.asarray(image.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BOX))
    digest = hashlib.sha256(f"{height} {width} ".encode() + image.tobytes()).hexdigest()
    file = hashlib.sha256(path.read_bytes()).hexdigest()
    return Facts(file, digest, (height, width), np.packbits(grey[:, 1:] > grey[:, :-1]), deep)


def _describe_depth(image: Image.Image, pixels: Tensor) -> str:
    if not is_deep(image):
        return ""
    top = int(pixels.max())
    dark = "; very dark: are they 10 or 12 bits in 16?" if 0 < top < _DARK else ""
    return f"the brightest of 255 is {top}{dark}"


def _pair_identical(known: dict[int, Facts]) -> dict[tuple[int, int], str]:
    """Pair each image whose pixels came before with the first that has them; training images come first."""
    groups = defaultdict(list)
    for row, facts in known.items():
        groups[facts.pixels].append(row)
    pairs = [(rows[0], row) for rows in groups.values() for row in rows[1:]]
    return {(a, b): "the same file" if known[a].file == known[b].file else "the same pixels" for a, b in pairs}


def _pair_alike(known: dict[int, Facts], split: int) -> Iterator[tuple[tuple[int, int], str]]:
    """Pair each test image that looks like a training image with the one that it is most like."""
    rows = list(known)
    train, test = [row for row in rows if row < split], [row for row in rows if row >= split]
    if not train or not test:
        return

    def unpack_signs(rows: list[int]) -> Tensor:
        bits = np.unpackbits(np.stack([known[row].outline for row in rows]), axis=1)
        return torch.from_numpy(bits).float() * 2 - 1  # [len(rows), 256]

    outlines = unpack_signs(train)
    for start in range(0, len(test), _BLOCK):
        block = test[start : start + _BLOCK]
        agree, nearest = (outlines @ unpack_signs(block).T).max(0)  # agreeing less differing bits
        for row, index, bits in zip(block, nearest.tolist(), ((_SIDE**2 - agree) / 2).int().tolist(), strict=True):
            if bits <= _ALIKE:
                yield (train[index], row), f"{bits} of {_SIDE**2} bits apart"


def _make_pair(entries: Entries, rows: tuple[int, int], likeness: str) -> Pair:
    (first, label), (second, other) = (entries[row] for row in rows)
    return Pair(first, second, likeness, label != other)
