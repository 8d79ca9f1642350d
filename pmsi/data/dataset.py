"""Data sets as uint8 tensors: listed and checked first, then decoded or loaded from a cache."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from pmsi.data import typefaces
from pmsi.data.cache import load_or_decode, make_key
from pmsi.data.decoding import Collected, Progress, collect_images, decode_images
from pmsi.data.holdout import choose_rows
from pmsi.data.layouts import LAYOUTS, list_images
from pmsi.data.layouts.base import Entries, Listing, check_listing, count_left_out
from pmsi.data.storage import ImageFiles, Split
from pmsi.runtime.cores import count_workers
from pmsi.runtime.files import expand_home

if TYPE_CHECKING:
    DataName = str  # a literal cannot be made of a table for the type checker
else:
    DataName = Literal[("typefaces", *LAYOUTS)]


@dataclass(frozen=True)
class Dataset:
    """Training and test images of one source.

    Args:
        name: one of `DataName`.
        classes: K names; labels are their indices.
        train, test: the splits.
        protocol: one sentence for a report: what the split is, how many images, what was left out.
        skipped: unreadable files that were left out.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    protocol: str
    skipped: tuple[str, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """Values that tell data sets apart: class names, numbers of images, and CRC-32s of all labels and pixels.

        Of images that stay in files, ``files_crc32`` is of their contents and ``data_crc32`` of their times of change.
        """
        labels = torch.cat([self.train.labels, self.test.labels])
        files = [split.files for split in (self.train, self.test) if split.files is not None]
        return {
            "classes": len(self.classes),
            "class_names": list(self.classes),
            "train_images": len(self.train.labels),
            "test_images": len(self.test.labels),
            "data_crc32": self.train.crc32 ^ self.test.crc32,
            "labels_crc32": zlib.crc32(labels.numpy().data),
            **({"files_crc32": [one.content_crc32 for one in files]} if files else {}),
        }

    def order_classes(self, classes: Sequence[str]) -> Dataset:
        """Data set whose labels count the same classes in another order.

        Raises:
            ValueError: the classes are others.
        """
        check_classes(self.name, self.classes, classes)
        places = {name: place for place, name in enumerate(classes)}
        number = torch.tensor([places[name] for name in self.classes])
        train, test = (replace(split, labels=number[split.labels]) for split in (self.train, self.test))
        return replace(self, classes=tuple(classes), train=train, test=test)

    @classmethod
    def from_tensors(
        cls, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: Sequence[str] | None = None
    ) -> Dataset:
        """Data set of images in memory.

        Args:
            train, test: images uint8 ``[N, 3, R, R]`` in RGB, and labels int64 ``[N]``, on the CPU.
            classes: K names; None numbers the classes from 0 to the highest label.

        Raises:
            TypeError: images are not uint8, or labels not int64.
            ValueError: shapes do not fit, or a label has no class.

        >>> images, labels = torch.zeros(6, 3, 36, 36, dtype=torch.uint8), torch.arange(6) % 3
        >>> Dataset.from_tensors((images, labels), (images[:2], labels[:2])).classes
        ('0', '1', '2')
        """
        for images, labels in (train, test):
            if images.dtype != torch.uint8 or labels.dtype != torch.int64:
                raise TypeError(
                    f"Dataset: needs uint8 images and int64 labels, got {images.dtype} and {labels.dtype};"
                    " give images of 0 to 255 before normalisation"
                )
            square = images.ndim == 4 and images.shape[1] == 3 and images.shape[2] == images.shape[3]
            if not square or labels.shape != images.shape[:1] or not len(labels):
                raise ValueError(
                    f"Dataset: needs images [N, 3, R, R] and labels [N], got {list(images.shape)} and"
                    f" {list(labels.shape)}"
                )
        if train[0].shape[2:] != test[0].shape[2:]:
            raise ValueError(
                f"Dataset: training and test images must have one size, got {list(train[0].shape)} and"
                f" {list(test[0].shape)}"
            )
        known = torch.cat([train[1], test[1]])
        names = tuple(classes or map(str, range(int(known.max()) + 1)))
        if known.min() < 0 or known.max() >= len(names):
            raise ValueError(
                f"Dataset: labels must lie in 0..{len(names) - 1}, got {int(known.min())}..{int(known.max())}"
            )
        splits = [Split(images.contiguous(), labels) for images, labels in (train, test)]
        protocol = f"{len(names)} classes, {len(train[1])} training and {len(test[1])} test images in memory."
        return cls("tensors", names, splits[0], splits[1], protocol)


def load_dataset(
    name: str,
    root: Path | None,
    *,
    resize: int,
    seed: int = 0,
    skip_unreadable: bool = False,
    progress: Progress | None = None,
    cache: Path | None = None,
    stream: bool = False,
    hold_out: int | None = None,
    train_per_class: int | None = None,
    classes: Sequence[str] | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> Dataset:
    """Read a whole data set; a file's bytes and ``resize`` alone decide its pixels.

    Args:
        name: "typefaces" (rendered), or the layout of ``root`` (see `pmsi.data.layouts.list_images`).
        root: folder of the images; None for "typefaces".
        resize: R, px; both sides of every image become it. 11,788 images at 512 px take 9.3 GB.
        seed: of "typefaces".
        skip_unreadable: leave out files that cannot be decoded, and say so, rather than stop at the first.
        progress: called with (what, done, total) as images are decoded.
        cache: folder that keeps the decoded images; later calls decode none (see `pmsi.data.cache`).
        stream: leave the images in their files, to be decoded whenever they are needed.
        hold_out: n; train on all but every n-th training image of each class, and test on those.
        train_per_class: n; train on the first n training images of each class alone, of those not held out.
        workers: threads that decode, or processes with ``stream`` (0: none); None is one for each core of this process.
        classes: names of the classes that a network knows, in its order, which the labels then have.
        say: called with one line: what is kept in the cache, or why a file of it could not be used.

    Raises:
        ValueError: unknown name, missing or superfluous root, tables that disagree, a class without training images or
            with fewer than ``train_per_class``, no test images, an image that cannot be read, or other classes than
            ``classes``.
        FileNotFoundError: a folder, table or listed image is not there; found before any image is read.
        OSError: the cache cannot be written.
    """
    if name not in ("typefaces", *LAYOUTS):
        raise ValueError(f"data: unknown data set {name!r}; choose typefaces, {', '.join(LAYOUTS)}")
    if resize < 1:
        raise ValueError(f"{name}: resize must be at least 1 px, got {resize}")
    if name == "typefaces":
        if root is not None:
            raise ValueError(f"typefaces: takes no --root, got {root}; leave it out, or choose other --data")
        dataset = _load_typefaces(resize, seed, hold_out, train_per_class, progress)
        return dataset if classes is None else dataset.order_classes(classes)
    if root is None:
        raise ValueError(f"{name}: needs the folder of the images; give it with --root")
    count_workers(workers)  # refused before an image is read
    if stream and skip_unreadable:
        raise ValueError(f"{name}: streamed images are not read in advance, so unreadable ones cannot be skipped")
    root, cache = expand_home(root), None if cache is None else expand_home(cache)
    listing = list_images(name, root, hold_out, train_per_class)
    if classes is not None:
        check_classes(name, listing.classes, classes)  # before an image is read

    def read(what: str, entries: Entries) -> Collected:
        report = partial(progress or (lambda *_: None), f"{name}: reading {what} images")
        paths = [path for path, _ in entries]
        images = partial(decode_images, paths, resize, report, stop=not skip_unreadable, workers=workers)
        if cache is None:
            return collect_images(images(), len(entries), resize)
        key = make_key(root, entries, resize=resize, skip_unreadable=skip_unreadable)
        part = what if hold_out is None else f"{what}-hold-out-{hold_out}"
        if train_per_class is not None and what == "training":
            part += f"-{train_per_class}-per-class"
        return load_or_decode(cache, f"{name}-{resize}px-{part}", key, images, len(entries), say)

    dataset = _leave_in_files(listing, resize, workers) if stream else _assemble(listing, resize, read)
    return dataset if classes is None else dataset.order_classes(classes)


def check_classes(name: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Check that a data set has the classes that a network knows, in any order; ValueError names the first that differ.

    Args:
        name: of the data set.
        found, wanted: names of its classes, and of the network's.
    """
    if len(found) != len(wanted):
        raise ValueError(f"the network knows {len(wanted)} classes, {name} has {len(found)}")
    there, known = {*found}, {*wanted}
    lacking = [one for one in wanted if one not in there]
    if lacking:
        other = next(one for one in found if one not in known)
        raise ValueError(
            f"the network knows the class {lacking[0]!r}, {name} has {other!r} instead"
            f" ({len(lacking)} of {len(wanted)} classes are others)"
        )


def _load_typefaces(
    resize: int, seed: int, hold_out: int | None, train_per_class: int | None, progress: Progress | None
) -> Dataset:
    count = typefaces.TRAIN_PER_CLASS
    if hold_out is None and train_per_class is not None and train_per_class > 0:
        count = min(count, train_per_class)  # an image does not depend on how many there are
    rendered = typefaces.render_typefaces(resize, train_per_class=count, seed=seed, progress=progress)
    train, test = (Split(*pair) for pair in rendered)
    chosen = choose_rows(train.labels.tolist(), tuple(typefaces.TYPEFACES), hold_out, train_per_class)
    if hold_out is not None:
        test = Split(train.images[chosen.held_out], train.labels[chosen.held_out])
    train = Split(train.images[chosen.train], train.labels[chosen.train])
    protocol = (
        f"{len(typefaces.TYPEFACES)} typefaces that matplotlib ships, random words of seed {seed}: {len(train.labels)}"
        f" training and {len(test.labels)} test images, rendered at {resize} x {resize} px{chosen.rule}."
    )
    return Dataset("typefaces", tuple(typefaces.TYPEFACES), train, test, protocol)


def _leave_in_files(listing: Listing, resize: int, workers: int | None) -> Dataset:
    empty = torch.empty(0, 3, resize, resize, dtype=torch.uint8)
    train, test = (
        Split(empty, _take_labels(entries), ImageFiles([path for path, _ in entries], resize, workers))
        for entries in (listing.train, listing.test)
    )
    return Dataset(
        listing.name, listing.classes, train, test, _describe_protocol(listing, resize, "read anew in every epoch")
    )


def _assemble(listing: Listing, resize: int, read: Callable[[str, Entries], Collected]) -> Dataset:
    splits, kept, skipped = [], [], []
    for what, entries in (("training", listing.train), ("test", listing.test)):
        images, failed = read(what, entries)
        kept.append(tuple(entry for row, entry in enumerate(entries) if row not in failed))
        splits.append(Split(images, _take_labels(kept[-1])))
        skipped += [str(entries[row][0]) for row in failed]
    kept_listing = replace(listing, train=kept[0], test=kept[1])
    if skipped:
        check_listing(kept_listing, f" left after {len(skipped)} unreadable ones were skipped")
    protocol = _describe_protocol(kept_listing, resize, f"unreadable files left out: {len(skipped) or 'none'}")
    return Dataset(listing.name, listing.classes, splits[0], splits[1], protocol, tuple(skipped))


def _take_labels(entries: Entries) -> Tensor:
    return torch.tensor([label for _, label in entries], dtype=torch.int64)


def _describe_protocol(listing: Listing, resize: int, how: str) -> str:
    unused = count_left_out(listing)
    how += f"; left out: {unused} (`pmsi data check` lists them)" if unused else ""
    return (
        f"{listing.rule}: {len(listing.classes)} classes, {len(listing.train)} training and {len(listing.test)} test"
        f" images, each resized to {resize} x {resize} px whatever its shape; {how}."
    )
