"""Check of an exported file: it answers the test images, beside the checkpoint that it was made from."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pmsi.data.layouts.base import is_hidden
from pmsi.data.pixels import SUFFIXES
from pmsi.deployment.description import Description
from pmsi.deployment.photos import fetch_photos
from pmsi.deployment.runtimes import Predict
from pmsi.evaluation.statistics import Comparison, compare_paired

_BATCH = 16
_ROUNDS = 15  # of one image by both, in turns, after _WARM that do not count
_WARM = 3
Images = NDArray[np.uint8]


@dataclass(frozen=True)
class CheckImages:
    """Images that exported files are tested with.

    Args:
        images: uint8 ``[N, 3, crop, crop]``.
        labels: int64 ``[N]``.
        name: where they come from, in words.
    """

    images: Images
    labels: NDArray[np.int64]
    name: str


@dataclass(frozen=True)
class Check:
    """Findings about one file.

    Args:
        images: how many.
        agreement: percent that get the class which the checkpoint gives.
        largest_difference: of two probabilities.
        accuracy, checkpoint_accuracy: percent.
        compared: the file against the checkpoint on the same images.
        milliseconds, checkpoint_milliseconds: medians for one image, measured in turns.
    """

    images: int
    agreement: float
    largest_difference: float
    accuracy: float
    checkpoint_accuracy: float
    compared: Comparison
    milliseconds: float
    checkpoint_milliseconds: float

    @property
    def worse(self) -> bool:
        """The paired test calls the file worse than its checkpoint."""
        return self.compared.verdict == "worse"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {name: value for name, value in vars(self).items() if name != "compared"}
        low, high = self.compared.interval
        return {
            **values,
            "difference": self.compared.difference,
            "interval": [low, high],
            "confidence": self.compared.confidence,
            "p_value": self.compared.p_value,
            "verdict": self.compared.verdict,
        }


def check_file(
    predict: Predict,
    reference: Predict,
    wanted: NDArray[np.float32],
    checked: CheckImages,
    report: Callable[[int], None],
) -> Check:
    """Check a file.

    Args:
        predict: of the file, through its own runtime.
        reference: of the checkpoint.
        wanted: probabilities ``[N, K]`` of the checkpoint.
        checked: images and labels.
        report: called with the number of images done.

    Raises:
        ValueError: the file gives something else than probabilities of the same classes.
    """
    found = predict_all(predict, checked.images, report)
    if found.shape != wanted.shape or not np.isfinite(found).all():
        raise ValueError(f"the file gives {list(found.shape)}, not probabilities {list(wanted.shape)}; nothing is kept")
    classes, before = found.argmax(1).astype(np.int64), wanted.argmax(1).astype(np.int64)
    labels = torch.from_numpy(checked.labels)
    times = measure_latency([predict, reference], checked.images[:1])
    return Check(
        images=len(labels),
        agreement=100 * float((classes == before).mean()),
        largest_difference=float(np.abs(found - wanted).max()),
        accuracy=100 * float((classes == checked.labels).mean()),
        checkpoint_accuracy=100 * float((before == checked.labels).mean()),
        compared=compare_paired(labels, classes, before),
        milliseconds=times[0],
        checkpoint_milliseconds=times[1],
    )


def predict_all(predict: Predict, images: Images, report: Callable[[int], None]) -> NDArray[np.float32]:
    """Predict all images in batches, probabilities ``[N, K]``."""
    parts = []
    for row in range(0, len(images), _BATCH):
        parts.append(predict(images[row : row + _BATCH]))
        report(min(row + _BATCH, len(images)))
    return np.concatenate(parts)


def measure_latency(models: Sequence[Predict], image: Images) -> list[float]:
    """Median time of each model for one image ``[1, 3, crop, crop]``, ms; they take turns on the same machine."""
    times: list[list[float]] = [[] for _ in models]
    for number in range(_WARM + _ROUNDS):
        for predict, spent in zip(models, times, strict=True):
            start = time.perf_counter()
            predict(image)
            if number >= _WARM:
                spent.append(1000 * (time.perf_counter() - start))
    return [statistics.median(one) for one in times]


def read_check_images(folder: Path, description: Description, workers: int | None = None) -> CheckImages:
    """Read images to check with from a folder that has a folder for each class.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a folder that is no class of the network, one without images, or an image that cannot be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--check-images: there is no folder {folder}")
    inside = [one for one in sorted(folder.iterdir()) if one.is_dir() and not is_hidden(one.name)]
    odd = [one.name for one in inside if one.name not in description.classes]
    if odd or not inside:
        what = f"has {odd[0]!r}, which is none" if odd else "has no folder"
        raise ValueError(f"--check-images: {folder} {what} of the network's {len(description.classes)} classes")
    found = [
        (path, description.classes.index(one.name))
        for one in inside
        for path in sorted(one.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    if not found:
        raise ValueError(f"--check-images: {folder} holds no images")
    images = []
    for _, pixels in fetch_photos([path for path, _ in found], description, workers):
        if isinstance(pixels, ValueError):
            raise pixels
        images.append(pixels)
    labels = np.array([label for _, label in found], np.int64)
    return CheckImages(np.stack(images), labels, f"{len(images)} images of {folder.name}")
