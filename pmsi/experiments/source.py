"""Data set and initial weights of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pmsi.data.dataset import DataName, Dataset, load_dataset
from pmsi.models.backbones import make_backbone
from pmsi.recipe import Recipe
from pmsi.runtime.files import expand_home


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
    workers: int | None = None
    """Threads that decode images (processes, or 0 for none, where they are streamed); None is one for each core that
    may be used."""

    def find_weights(self, backbone: str) -> str:
        """File of backbone weights: of a folder the file that is named after ``backbone``, else ``weights`` itself.

        Raises:
            FileNotFoundError: the folder has none.
        """
        if self.weights in ("none", "imagenet"):
            return self.weights
        folder = expand_home(Path(self.weights))
        if not folder.is_dir():
            return str(folder) if self.weights.startswith("~") else self.weights
        files = sorted(folder.glob(f"{backbone.replace(':', '_')}*.pth"))
        if not files:
            raise FileNotFoundError(f"weights: {folder} has no file {backbone}*.pth; put it there, or give one file")
        return str(files[0])

    def check_weights(self, recipe: Recipe) -> None:
        """Build the recipe's backbone once, so that weights that do not fit are refused before anything is trained.

        Raises:
            ValueError, OSError: as `make_backbone` and `find_weights`.
        """
        make_backbone(recipe.backbone, self.find_weights(recipe.backbone), width_mult=recipe.width_mult)

    def load(
        self,
        recipe: Recipe,
        progress: Callable[[str, int, int], None] | None = None,
        say: Callable[[str], None] = print,
        classes: Sequence[str] | None = None,
    ) -> Dataset:
        """Load the images at the recipe's size, as uint8; labels count ``classes``, where a network knows some.

        Raises:
            ValueError, OSError: weights that do not fit the backbone (before any image is read), or bad data.
        """
        self.check_weights(recipe)
        return load_dataset(
            self.data,
            self.root,
            resize=recipe.resize,
            skip_unreadable=self.skip_unreadable,
            progress=progress,
            cache=self.cache,
            stream=self.stream,
            hold_out=self.hold_out,
            train_per_class=self.train_per_class,
            classes=classes,
            workers=self.workers,
            say=say,
        )


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """Facts about the data that a report shows, ready for JSON."""
    return {
        "name": dataset.name,
        "classes": len(dataset.classes),
        "class_names": list(dataset.classes),
        "train_images": len(dataset.train.labels),
        "test_images": len(dataset.test.labels),
        "protocol": dataset.protocol,
        "skipped": list(dataset.skipped),
    }


def describe_weights(weights: str) -> str:
    """Name of the backbone weights, with a digest where they are a file."""
    if weights in ("none", "imagenet"):
        return weights
    path = Path(weights)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
    return f"{Path(weights).name} (sha256 {digest[:16]})"
