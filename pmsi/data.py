"""Data sets held as uint8: listed and checked first, then decoded or taken from a cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from pmsi import typefaces
from pmsi.cache import Gathered, decode, fetch, gather, make_key
from pmsi.store import ImageFiles, Split

Progress = Callable[[str, int, int], None]
Entries = tuple[tuple[Path, int], ...]

_CUB_TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
_HOLD_OUT = 5


@dataclass(frozen=True)
class Dataset:
    """Training and test images of one source.

    Args:
        name: "typefaces", "cub" or "folder".
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


@dataclass(frozen=True)
class Listing:
    """What a data set holds before any image is read: (file, label) of each image, and the rule of its split."""

    name: str
    classes: tuple[str, ...]
    train: Entries
    test: Entries
    rule: str


def load(
    name: str,
    root: Path | None,
    *,
    resize: int,
    seed: int = 0,
    skip_unreadable: bool = False,
    progress: Progress | None = None,
    cache: Path | None = None,
    stream: bool = False,
    say: Callable[[str], None] = print,
) -> Dataset:
    """Read a whole data set; a file's bytes and ``resize`` alone decide its pixels.

    Args:
        name: "typefaces" (rendered), "cub" (the official CUB-200-2011 text layout) or "folder" (``train/<class>/*``
            with ``test/`` or ``val/``, or class folders, of which every fifth image is held out).
        root: folder of "cub" (or its parent) and "folder"; None for "typefaces".
        resize: R, px; both sides of every image become it. 11,788 images at 512 px take 9.3 GB.
        seed: of "typefaces".
        skip_unreadable: leave out files that cannot be decoded, and say so, rather than stop at the first.
        progress: called with (what, done, total) as images are decoded.
        cache: folder that keeps the decoded images of "cub" and "folder"; later calls decode none (see `pmsi.cache`).
        stream: leave the images of "cub" and "folder" in their files, to be decoded whenever they are needed.
        say: told in one line what is kept there, and why what was there could not be used.

    Raises:
        ValueError: unknown name, missing or superfluous root, tables that disagree, a class without training images,
            no test images, or an image that cannot be read.
        FileNotFoundError: a folder, table or listed image is not there; found before any image is read.
        OSError: the cache cannot be written.
    """
    if name not in ("typefaces", *_LISTERS):
        raise ValueError(f"data: unknown data set {name!r}; choose typefaces, {' or '.join(_LISTERS)}")
    if resize < 1:
        raise ValueError(f"{name}: resize must be at least 1 px, got {resize}")
    if name == "typefaces":
        if root is not None:
            raise ValueError(f"typefaces: takes no --root, got {root}; leave it out, or choose --data cub or folder")
        return _load_typefaces(resize, seed, progress)
    if root is None:
        raise ValueError(f"{name}: needs the folder of the images; give it with --root")
    if stream and skip_unreadable:
        raise ValueError(f"{name}: streamed images are not read in advance, so unreadable ones cannot be skipped")
    listing = list_images(name, root)

    def read(what: str, entries: Entries) -> Gathered:
        report = partial(progress or (lambda *_: None), f"{name}: reading {what} images")
        images = partial(decode, [path for path, _ in entries], resize, report, stop=not skip_unreadable)
        if cache is None:
            return gather(images(), len(entries), resize)
        key = make_key(root, entries, resize=resize, skip_unreadable=skip_unreadable)
        return fetch(cache, f"{name}-{resize}px-{what}", key, images, say)

    return _leave_in_files(listing, resize) if stream else _assemble(listing, resize, read)


def list_images(name: str, root: Path) -> Listing:
    """What "cub" or "folder" holds, checked; arguments and errors as for `load`."""
    if not root.is_dir():
        raise FileNotFoundError(f"{name}: there is no folder {root}; --root must be the folder of the images")
    listing = _LISTERS[name](root)
    _check_listing(listing, "")
    return listing


def _load_typefaces(resize: int, seed: int, progress: Progress | None) -> Dataset:
    train, test = (Split(*pair) for pair in typefaces.render(resize, seed=seed, progress=progress))
    protocol = (
        f"{len(typefaces.TYPEFACES)} typefaces that matplotlib ships, random words of seed {seed}: {len(train.labels)}"
        f" training and {len(test.labels)} test images, rendered at {resize} x {resize} px."
    )
    return Dataset("typefaces", tuple(typefaces.TYPEFACES), train, test, protocol)


def _list_cub(root: Path) -> Listing:
    """CUB-200-2011's text files, checked against each other and against the disk."""
    root = root / "CUB_200_2011" if (root / "CUB_200_2011").is_dir() else root
    missing = [name for name in (*_CUB_TABLES, "images") if not (root / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"cub: {root} has no {', '.join(missing)}; --root must be the folder that holds {', '.join(_CUB_TABLES)}"
            " and images/, or its parent with CUB_200_2011/"
        )
    files, class_ids, in_train, names = (_read_table(root / name) for name in _CUB_TABLES)
    _check_ids("image_class_labels.txt", files, class_ids)
    _check_ids("train_test_split.txt", files, in_train)
    _check_values("image_class_labels.txt", class_ids, names, "a class id of classes.txt")
    _check_values("train_test_split.txt", in_train, ("0", "1"), "0 (test) or 1 (training)")
    repeated = [file for file, count in Counter(files.values()).items() if count > 1]
    if repeated:
        raise ValueError(f"cub: images.txt lists {repeated[0]} more than once; train and test must not share an image")
    folder = root / "images"
    absent = [file for file in files.values() if not (folder / file).is_file()]
    if absent:
        raise FileNotFoundError(
            f"cub: images.txt names {absent[0]}, which is not in {folder} ({len(absent)} of {len(files)} are missing)"
        )
    label = {class_id: index for index, class_id in enumerate(names)}
    train, test = (
        tuple((folder / file, label[class_ids[i]]) for i, file in files.items() if in_train[i] == flag) for flag in "10"
    )
    return Listing("cub", tuple(names.values()), train, test, "CUB-200-2011 layout, split by its train_test_split.txt")


def _read_table(path: Path) -> dict[str, str]:
    """Lines of "id value", in order."""
    table: dict[str, str] = {}
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        fields = line.split(maxsplit=1)
        if len(fields) == 1:
            raise ValueError(f"cub: {path.name} line {number} must be an id and a value, got {line!r}")
        if fields:
            if fields[0] in table:
                raise ValueError(f"cub: {path.name} line {number} repeats id {fields[0]}; ids must be unique")
            table[fields[0]] = fields[1].rstrip()
    return table


def _check_ids(name: str, files: dict[str, str], table: dict[str, str]) -> None:
    odd = [key for key in files | table if (key in files) != (key in table)]
    if odd:
        lacking = name if odd[0] in files else "images.txt"
        raise ValueError(f"cub: {lacking} lacks image {odd[0]}; images.txt and {name} disagree on {len(odd)} ids")


def _check_values(name: str, table: dict[str, str], allowed: Sequence[str] | dict[str, str], meaning: str) -> None:
    for key, value in table.items():
        if value not in allowed:
            raise ValueError(f"cub: {name} gives image {key} the value {value!r}; it must be {meaning}")


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


_LISTERS: dict[str, Callable[[Path], Listing]] = {"cub": _list_cub, "folder": _list_folder}


def _check_listing(listing: Listing, when: str) -> None:
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


def _leave_in_files(listing: Listing, resize: int) -> Dataset:
    empty = torch.empty(0, 3, resize, resize, dtype=torch.uint8)
    train, test = (
        Split(empty, _take_labels(entries), ImageFiles([path for path, _ in entries], resize))
        for entries in (listing.train, listing.test)
    )
    return Dataset(listing.name, listing.classes, train, test, _describe(listing, resize, "read anew in every epoch"))


def _assemble(listing: Listing, resize: int, read: Callable[[str, Entries], Gathered]) -> Dataset:
    splits, kept, skipped = [], [], []
    for what, entries in (("training", listing.train), ("test", listing.test)):
        images, failed = read(what, entries)
        kept.append(tuple(entry for row, entry in enumerate(entries) if row not in failed))
        splits.append(Split(images, _take_labels(kept[-1])))
        skipped += [str(entries[row][0]) for row in failed]
    kept_listing = replace(listing, train=kept[0], test=kept[1])
    if skipped:
        _check_listing(kept_listing, f" left after {len(skipped)} unreadable ones were skipped")
    protocol = _describe(kept_listing, resize, f"unreadable files left out: {len(skipped) or 'none'}")
    return Dataset(listing.name, listing.classes, splits[0], splits[1], protocol, tuple(skipped))


def _take_labels(entries: Entries) -> Tensor:
    return torch.tensor([label for _, label in entries], dtype=torch.int64)


def _describe(listing: Listing, resize: int, how: str) -> str:
    return (
        f"{listing.rule}: {len(listing.classes)} classes, {len(listing.train)} training and {len(listing.test)} test"
        f" images, each resized to {resize} x {resize} px whatever its shape; {how}."
    )
