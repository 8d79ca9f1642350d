"""Image folders: a folder for each class, with test images of their own or some held out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from pmsi.data.layouts.base import Entries, Layout, Listing

_HOLD_OUT = 5


def list_folder(root: Path) -> Listing:
    """List ``train/`` with ``test/`` or ``val/``, or class folders of which every fifth image is held out."""
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


FOLDER = Layout(list_folder)
