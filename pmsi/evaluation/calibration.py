"""Calibrated confidence: a temperature for the logits (Guo et al. 2017), and how far confidence is from accuracy.

A temperature is never measured on the images that it was fitted to. For photographs to come it is fitted to all test
images; for the test images themselves each half is scaled by the temperature of the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURES = (0.05, 20.0)  # least and greatest: where all answers are right, none is small enough
_RANKS = 5
_STEPS = 60  # of the search, each of which leaves 62 % of the interval


class Bin(NamedTuple):
    """Answers whose confidence lies in one interval: how many, and their mean confidence and accuracy, as shares."""

    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Confidence beside accuracy.

    Args:
        error: expected calibration error, points: mean distance of a bin's accuracy from its confidence.
        bins: ten of equal width that are not empty, by rising confidence.
    """

    error: float
    bins: tuple[Bin, ...]


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Temperature under which the labels are most likely, within `TEMPERATURES` (golden-section search).

    Args:
        logits: ``[N, K]``.
        labels: int64 ``[N]``.

    Raises:
        ValueError: shapes do not fit, or there are no images.

    >>> logits = torch.tensor([[4.0, 0.0]]).expand(10, 2)  # as sure as 98 %, and right in 8 of 10
    >>> labels = torch.tensor([0] * 8 + [1] * 2)
    >>> round(fit_temperature(logits, labels), 2), round(torch.softmax(logits[0] / 2.885, 0)[0].item(), 1)
    (2.89, 0.8)
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(
            f"fit_temperature: needs logits [N, K] and labels [N] of one image or more, got {list(logits.shape)} and"
            f" {list(labels.shape)}"
        )
    exact = logits.double()

    def lose(log: Tensor) -> float:
        return F.cross_entropy(exact / log.exp(), labels).item()

    low, high = torch.tensor(TEMPERATURES, dtype=torch.float64).log()
    golden = (5**0.5 - 1) / 2
    for _ in range(_STEPS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if lose(left) <= lose(right):
            high = right
        else:
            low = left
    return float(((low + high) / 2).exp())


def cross_calibrate(logits: Tensor, labels: Tensor) -> Tensor:
    """Probabilities ``[N, K]`` of images, each scaled by a temperature that was fitted without it.

    Images of odd and of even rows are two halves, each scaled by the temperature of the other one. One image alone has
    temperature 1.
    """
    found = torch.softmax(logits.double(), 1)
    if len(labels) > 1:
        for half in (0, 1):
            temperature = fit_temperature(logits[1 - half :: 2], labels[1 - half :: 2])
            found[half::2] = torch.softmax(logits[half::2].double() / temperature, 1)
    return found


@dataclass(frozen=True)
class Answers:
    """Best classes of every test image.

    Args:
        classes: int64 ``[N, min(5, K)]``, best first.
        probabilities: of these, float32, by `cross_calibrate`.
        raw: float32 ``[N]``, probability of the best class before calibration.
        temperature: fitted to all test images, for images to come.
    """

    classes: Tensor
    probabilities: Tensor
    raw: Tensor
    temperature: float


def rank_answers(logits: Tensor, labels: Tensor) -> Answers:
    """Rank the classes of test images from their logits ``[N, K]`` and labels ``[N]``.

    >>> rank_answers(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([1, 1])).classes.tolist()
    [[1, 0], [0, 1]]
    """
    best = logits.topk(min(_RANKS, logits.shape[1]), 1).indices
    found = cross_calibrate(logits, labels).gather(1, best).float()
    raw = torch.softmax(logits.double(), 1).amax(1).float()
    return Answers(best, found, raw, fit_temperature(logits, labels))


def measure_calibration(confidences: Sequence[float], hits: Sequence[bool], *, bins: int = 10) -> Calibration:
    """Accuracy beside confidence, by bins of equal width.

    Args:
        confidences: of the answers, 0 to 1.
        hits: whether each is right.
        bins: number.

    Raises:
        ValueError: not as many of one as of the other, or none.

    >>> measure_calibration([0.92, 0.94], [True, False]).error
    43.0
    """
    if len(confidences) != len(hits) or not confidences:
        raise ValueError(f"measure_calibration: {len(confidences)} confidences of {len(hits)} answers; give one each")
    sure, right = torch.tensor(confidences, dtype=torch.float64), torch.tensor(hits, dtype=torch.float64)
    place = (sure * bins).long().clamp(0, bins - 1)
    found = []
    for number in range(bins):
        inside = place == number
        if inside.any():
            found.append(Bin(int(inside.sum()), float(sure[inside].mean()), float(right[inside].mean())))
    gap = sum(one.images * abs(one.confidence - one.accuracy) for one in found) / len(sure)
    return Calibration(round(100 * gap, 9), tuple(found))
