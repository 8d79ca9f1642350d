"""Where a run's images and initial weights come from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pmsi.data.dataset import DataName, Dataset, load_dataset
from pmsi.models.backbones import make_backbone
from pmsi.recipe import Recipe


@dataclass(frozen=True)
class Source:
    """Data and initial weights of a run."""

    data: DataName = "typefaces"
    """"typefaces" is rendered on the spot; "cub", "cars" and "aircraft" (with labels of another level: -family,
    -manufacturer) are the official layouts of the paper's data sets; "folder" is an ImageFolder."""
    root: Path | None = None
    """Folder of the images: as the official archive unpacks, or for "folder" train/ and test/, or class folders."""
    weights: str = "none"
    """Backbone weights: a file of torchvision's tensors, a folder of files that begin with the backbones' names,
    "imagenet" (downloaded by torchvision), or "none"."""
    hold_out: int | None = None
    """n; train on all but every n-th training image of each class and test on those, to choose settings by; the data
    set's own test images are not looked at."""
    train_per_class: int | None = None
    """n; train on the first n training images of each class alone, of those not held out."""
    skip_unreadable: bool = False
    """Leave out and count images that cannot be read, rather than stop at the first."""
    cache: Path | None = Path("~/.cache/pmsi")
    """Folder that keeps decoded images, so that a second run decodes none; None keeps none."""
    stream: bool = False
    """Decode images anew in every epoch, in worker processes: for sets that neither memory nor the cache holds."""

    def find_weights(self, backbone: str) -> str:
        """The file of a folder that is for ``backbone``; what is no folder is for all.

        Raises:
            FileNotFoundError: the folder has none.
        """
        folder = Path(self.weights).expanduser()
        if self.weights in ("none", "imagenet") or not folder.is_dir():
            return self.weights
        files = sorted(folder.glob(f"{backbone.replace(':', '_')}*.pth"))
        if not files:
            raise FileNotFoundError(f"weights: {folder} has no file {backbone}*.pth; put it there, or give one file")
        return str(files[0])

    def check_weights(self, backbone: str) -> None:
        """Raises what `make_backbone` and `find_weights` do, before anything is trained; downloads what is to come."""
        make_backbone(backbone, self.find_weights(backbone))

    def load(
        self,
        recipe: Recipe,
        progress: Callable[[str, int, int], None] | None = None,
        say: Callable[[str], None] = print,
    ) -> Dataset:
        """All images at the recipe's size, as uint8; weights that will not fit are refused first."""
        self.check_weights(recipe.backbone)
        root, cache = (None if path is None else Path(path).expanduser() for path in (self.root, self.cache))
        how: dict[str, Any] = {"skip_unreadable": self.skip_unreadable, "cache": cache, "stream": self.stream}
        how |= {"hold_out": self.hold_out, "train_per_class": self.train_per_class}
        return load_dataset(self.data, root, resize=recipe.resize, progress=progress, say=say, **how)


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """What a report says about the data."""
    return {
        "name": dataset.name,
        "classes": len(dataset.classes),
        "train_images": len(dataset.train.labels),
        "test_images": len(dataset.test.labels),
        "protocol": dataset.protocol,
        "skipped": list(dataset.skipped),
    }


def describe_weights(weights: str) -> str:
    """Where backbone weights come from, and a digest of a file."""
    if weights in ("none", "imagenet"):
        return weights
    path = Path(weights)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
    return f"{Path(weights).name} (sha256 {digest[:16]})"
