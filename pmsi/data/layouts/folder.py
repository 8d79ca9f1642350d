"""Image folders: a folder for each class, with test images of their own or some held out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pmsi.data.layouts.base import Entries, Layout, Listing, is_hidden, step_into
from pmsi.data.pixels import SUFFIXES

_HOLD_OUT = 5
_SPELLINGS = {
    "train": {"train", "training", "trn", "trainval"},
    "test": {"test", "tests", "testing", "tst", "eval", "evaluation"},
    "val": {"val", "valid", "validation", "dev"},
}
# Words that names of parts have besides: train_images, TestSet, seg_train.
_FILLERS = {"set", "data", "dataset", "split", "image", "images", "img", "imgs", "photos", "files", "seg", "crops"}


def list_folder(root: Path) -> Listing:
    """List training and test folder, in any usual spelling, or class folders of which every fifth image is held out."""
    root = step_into(root)
    parts = _list_parts(root)
    if not parts:
        classes, loose = _list_classes(root)
        files, left_out = _list_files(root, classes)
        train = _label([path for n, path in enumerate(paths, 1) if n % _HOLD_OUT] for paths in files)
        test = _label(paths[_HOLD_OUT - 1 :: _HOLD_OUT] for paths in files)
        rule = f"class folders, every {_HOLD_OUT}th image of each in sorted order held out as test"
        return Listing("folder", classes, train, test, rule, (*loose, *left_out))
    if "train" not in parts or len(parts) == 1:
        found, lacks = next(iter(parts.values())).name, "train/" if "train" not in parts else "test/ or val/"
        raise FileNotFoundError(
            f"folder: {root} has {found}/ but no {lacks}; --root must hold train/ with test/ or val/, or class folders"
            f" alone (if {found} is a class, call it otherwise)"
        )
    train_folder = step_into(parts["train"])
    classes, loose = _list_classes(train_folder)
    test_name, unlabelled = _choose_test(classes, parts)
    test_folder = step_into(parts[test_name])
    test_classes, test_loose = _list_classes(test_folder)
    only = [", ".join(sorted({*a} - {*b})) for a, b in ((classes, test_classes), (test_classes, classes))]
    if any(only):
        raise ValueError(
            f"folder: {train_folder.name}/ and {test_folder.name}/ must hold the same classes;"
            f" {train_folder.name}/ alone has {only[0] or 'none'}, {test_folder.name}/ alone has {only[1] or 'none'}"
        )
    listed = [_list_files(part, classes) for part in (train_folder, test_folder)]
    (train, left_out), (test, test_left_out) = ((_label(files), left_out) for files, left_out in listed)
    beside = [path for path in _list_folders(root) if path not in (parts["train"], parts[test_name])]
    rule = f"image folder split into its {train_folder.name}/ and {test_folder.name}/{unlabelled}"
    return Listing("folder", classes, train, test, rule, (*beside, *loose, *left_out, *test_loose, *test_left_out))


def name_part(name: str) -> str | None:
    """Name the part of a data set that a folder's name means: "train", "test" or "val"; None if it means none.

    >>> [name_part(name) for name in ("Training", "TEST", "seg_test", "valid", "ValidationSet", "test1", "sparrow")]
    ['train', 'test', 'test', 'val', 'val', 'test', None]
    """
    words = [word.casefold() for word in re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+", name)]
    words = [re.sub(r"(?<=[a-z]{2})(set|data|images)$", "", word) for word in words]
    words = [word for word in words if word not in _FILLERS]
    if words == ["train", "val"]:
        return "train"
    return next((part for part, known in _SPELLINGS.items() if len(words) == 1 and words[0] in known), None)


def _list_parts(root: Path) -> dict[str, Path]:
    """Folders of training, test and validation images; ValueError if there are two of one kind."""
    parts: dict[str, Path] = {}
    for path in _list_folders(root):
        part = name_part(path.name)
        if part in parts:
            raise ValueError(
                f"folder: {parts[part].name}/ and {path.name}/ in {root} both look like the {part} images; move one"
                " away"
            )
        if part is not None:
            parts[part] = path
    return dict(sorted(parts.items(), key=lambda item: list(_SPELLINGS).index(item[0])))


def _choose_test(classes: Sequence[str], parts: Mapping[str, Path]) -> tuple[str, str]:
    """Part to test on: "test", or "val" if no folder in "test" is called as a class; and words that say so.

    Raises:
        FileNotFoundError: neither has labels.
    """
    candidates = [name for name in ("test", "val") if name in parts]
    found = {name: _list_classes(step_into(parts[name])) for name in candidates}
    labelled = [name for name in candidates if {*found[name][0]} & {*classes}]
    if labelled == ["val"] and "test" in parts:
        return "val", f"; {parts['test'].name}/ has no folders of these classes, and is not used"
    if labelled or any(others for others, _ in found.values()):  # other classes are refused by their names
        return (labelled or candidates)[0], ""
    first = candidates[0]
    raise FileNotFoundError(
        f"folder: {parts[first].name}/ has no class folders ({len(found[first][1])} images without a label lie there);"
        f" put test images into a folder for each class, or labelled ones into val/"
    )


def _list_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def _list_classes(folder: Path) -> tuple[tuple[str, ...], list[Path]]:
    """Names of the class folders, and images that lie beside them."""
    loose = sorted(path for path in folder.iterdir() if _is_image(path.name) and not path.is_dir())
    return tuple(path.name for path in _list_folders(folder)), loose


def _list_files(folder: Path, classes: Sequence[str]) -> tuple[list[list[Path]], list[Path]]:
    """Images of each class, in folders below too, and what lies there and is no image of a known kind.

    Raises:
        ValueError: a class folder holds a folder of training or test images.
    """
    images: list[list[Path]] = []
    left_out: list[Path] = []
    for name in classes:
        found: list[Path] = []
        for place, folders, files in os.walk(folder / name, onerror=_stop):
            folders[:] = [below for below in folders if not is_hidden(below)]
            split = next((below for below in folders if name_part(below) is not None), None)
            if split is not None:
                raise ValueError(
                    f"folder: class {name} holds {split}/: the split must lie above the classes, as"
                    f" {split}/CLASS/IMAGE (or is {folder / name} the --root?)"
                )
            left_out += [path for below in folders if (path := Path(place, below)).is_symlink()]  # not followed
            for file in files:
                if not is_hidden(file):
                    (found if _is_image(file) else left_out).append(Path(place, file))
        images.append(sorted(found))
    return images, sorted(left_out)


def _stop(error: OSError) -> None:
    raise error  # a folder that cannot be read must not be taken for an empty one


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not is_hidden(name)


def _label(files: Iterable[list[Path]]) -> Entries:
    return tuple((path, label) for label, paths in enumerate(files) for path in paths)


FOLDER = Layout(list_folder)
