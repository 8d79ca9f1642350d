"""Statistics of runs: means over seeds, paired comparisons on the same test images, classes and confusions.

Labels are int64 ``[N]``; predictions int64 ``[N]``, or ``[S, N]`` for S seeds; both may be lists. Accuracies are in
percent and their differences in points.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Classes = Tensor | Sequence[int] | Sequence[Sequence[int]] | NDArray[np.int64]
Verdict = Literal["better", "worse", "not told apart"]


class Summary(NamedTuple):
    """Mean and standard deviation of a figure over seeds (n - 1 in the denominator; None for one seed)."""

    mean: float
    std: float | None
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.std is None else f"{self.mean:.1f} ± {self.std:.1f}"


def summarise(values: Sequence[float]) -> Summary:
    """Mean and standard deviation over seeds.

    Raises:
        ValueError: no value.

    >>> str(summarise([82.0, 84.0]))
    '83.0 ± 1.4'
    """
    if not values:
        raise ValueError("summarise: needs a value or more, got none")
    return Summary(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Comparison:
    """Comparison of two methods on the same test images.

    Args:
        difference: accuracy of the first minus that of the second, means over seeds, points.
        interval: bootstrap interval of the difference, points.
        confidence: of the interval, as a share.
        p_value: of McNemar's exact test, two-sided; None where a method has several seeds.
        images: N.
        seeds: of the first and of the second method.
    """

    difference: float
    interval: tuple[float, float]
    confidence: float
    p_value: float | None
    images: int
    seeds: tuple[int, int]

    @property
    def verdict(self) -> Verdict:
        """Verdict on the first method: "better" or "worse" if the interval leaves 0 out, and McNemar's test agrees.

        The test is asked too because the interval is too short where the methods differ on a handful of images.
        """
        low, high = self.interval
        agrees = self.p_value is None or self.p_value <= 1 - self.confidence
        if low > 0 and agrees:
            return "better"
        return "worse" if high < 0 and agrees else "not told apart"

    def sentence(self, first: str, second: str) -> str:
        """Verdict in words, with its figures."""
        verdict = self.verdict
        words = f"and {second} are {verdict}" if verdict == "not told apart" else f"is {verdict} than {second}"
        low, high = self.interval
        test = "" if self.p_value is None else f"; McNemar p = {self.p_value:.2g}"
        return (
            f"{first} {words}: {self.difference:+.1f} points"
            f" ({100 * self.confidence:g} % interval {low:+.1f} to {high:+.1f}{test})."
        )


def compare_paired(
    labels: Classes,
    first: Classes,
    second: Classes,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Paired bootstrap over test images, and over the seeds of a method that has several.

    Images are drawn with replacement, the same ones for both methods, and of a method's S seeds S - 1 (Rao and Wu 1988:
    their mean then has the right variance). Drawing both counts chance per image and seed twice, so with several seeds
    intervals are wide rather than short: 95 % to 100 % of them held the truth in simulations, but fewer where seeds
    differ far more than images explain (69 % with 2 seeds, 88 % with 3, 91 % with 5). With one seed each, the statement
    is about these two networks, not about other seeds. For m comparisons at once, give ``confidence=1 - 0.05 / m``.

    Args:
        labels: ``[N]``.
        first, second: predictions ``[N]`` or ``[S, N]``; the numbers of seeds may differ.
        confidence: of the interval.
        resamples: of the bootstrap.
        seed: of its draws; the same seed gives the same interval.

    Raises:
        ValueError: shapes do not fit, there are no images, or a number is out of range.
        TypeError: labels or predictions are not integers.

    >>> labels = torch.zeros(400, dtype=torch.int64)
    >>> first, second = (torch.arange(400) >= right for right in (300, 260))
    >>> print(compare_paired(labels, first.long(), second.long()).sentence("RMG", "none"))
    RMG is better than none: +10.0 points (95 % interval +7.2 to +13.0; McNemar p = 1.8e-12).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"compare_paired: confidence must lie between 0 and 1, got {confidence}")
    if resamples < 1:
        raise ValueError(f"compare_paired: resamples must be at least 1, got {resamples}")
    truth = _as_labels(labels)
    hits = [_as_predictions(one, truth) == truth for one in (first, second)]  # [S, N] each
    seeds = (len(hits[0]), len(hits[1]))
    difference = 100 * float(hits[0].mean() - hits[1].mean())

    means = _resample_accuracies(hits, resamples, seed)
    low, high = _cut_tails(means[0] - means[1], confidence)
    p_value = mcnemar(*(int((a & ~b).sum()) for a, b in (hits, hits[::-1]))) if seeds == (1, 1) else None
    return Comparison(difference, (low, high), confidence, p_value, len(truth), seeds)


def measure_interval(
    labels: Classes, predictions: Classes, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of one accuracy, percent, over test images and seeds as in `compare_paired`.

    Raises:
        ValueError: shapes do not fit, or there are no images. TypeError: labels or predictions are not integers.

    >>> labels = torch.zeros(400, dtype=torch.int64)
    >>> measure_interval(labels, (torch.arange(400) >= 300).long())  # 75 % +- 1.96 * 2.2
    (70.75, 79.25)
    """
    truth = _as_labels(labels)
    (means,) = _resample_accuracies([_as_predictions(predictions, truth) == truth], resamples, seed)
    return _cut_tails(means, confidence)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of McNemar's test: are the images that one method alone gets right split evenly?

    >>> mcnemar(8, 1)  # 2 * (1 + 9) / 2**9
    0.0390625
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"mcnemar: counts must be 0 or more, got {only_first} and {only_second}")
    count = only_first + only_second
    way = total = 1  # binomial coefficients of 0 up to the smaller count, and their sum
    for k in range(min(only_first, only_second)):
        way = way * (count - k) // (k + 1)
        total += way
    return min(1.0, 2 * total / (1 << count))


class ClassAccuracy(NamedTuple):
    """Accuracy of one class: test images, and percent of them found, mean over seeds; None without images."""

    name: str
    images: int
    accuracy: float | None


def list_classes(labels: Classes, predictions: Classes, names: Sequence[str]) -> list[ClassAccuracy]:
    """Accuracy of every class, in the order of ``names``.

    Raises:
        ValueError: shapes do not fit, or a label or prediction has no name.
        TypeError: labels or predictions are not integers.

    >>> list_classes([0, 0, 1], [0, 1, 1], ["wren", "tern"])[0]
    ClassAccuracy(name='wren', images=2, accuracy=50.0)
    """
    truth, found = _check_classes(labels, predictions, len(names))
    images = np.bincount(truth, minlength=len(names))
    hits = np.bincount(truth, (found == truth).sum(0), len(names)) / len(found)
    return [
        ClassAccuracy(name, int(count), 100 * float(right / count) if count else None)
        for name, count, right in zip(names, images, hits, strict=True)
    ]


class Confusion(NamedTuple):
    """Images of class ``truth`` that are taken for ``predicted``, mean over seeds, and their share of the class."""

    truth: str
    predicted: str
    images: float
    share: float  # percent


def list_confusions(labels: Classes, predictions: Classes, names: Sequence[str], *, count: int = 10) -> list[Confusion]:
    """The most frequent confusions, at most ``count``; ties in the order of the classes.

    Raises:
        ValueError: shapes do not fit, or a label or prediction has no name.
        TypeError: labels or predictions are not integers.

    >>> list_confusions([0, 0, 1], [0, 1, 1], ["wren", "tern"])
    [Confusion(truth='wren', predicted='tern', images=1.0, share=50.0)]
    """
    truth, found = _check_classes(labels, predictions, len(names))
    totals = np.bincount(truth, minlength=len(names))
    # Those that occur, and not a table of all pairs, which has 10^8 for 10,000 classes.
    places, counts = np.unique((truth * len(names) + found)[found != truth], return_counts=True)
    images = counts / len(found)
    order = np.argsort(-counts, kind="stable")[:count]
    chosen = [(*divmod(int(places[row]), len(names)), images[row]) for row in order]
    return [Confusion(names[a], names[b], float(n), 100 * float(n / totals[a])) for a, b, n in chosen]


def count_confusions(labels: Classes, predictions: Classes, num_classes: int) -> NDArray[np.float64]:
    """Images by true class (row) and predicted class (column), ``[K, K]``, mean over seeds.

    Raises:
        ValueError: shapes do not fit, or a class lies outside 0..K-1.
        TypeError: labels or predictions are not integers.
    """
    truth, found = _check_classes(labels, predictions, num_classes)
    table = np.bincount((truth * num_classes + found).ravel(), minlength=num_classes**2)
    return table.reshape(num_classes, num_classes) / len(found)


def _resample_accuracies(hits: Sequence[NDArray[np.bool_]], resamples: int, seed: int) -> list[NDArray[np.float64]]:
    """Bootstrap resamples of the mean accuracy ``[R]`` of each method, as shares, from its hits ``[S, N]``.

    Images with the same pattern of hits are alike, so a resample of images is a multinomial draw over patterns.
    """
    patterns, counts = np.unique(np.concatenate(hits), axis=1, return_counts=True)  # [all S, P], [P]
    generator = np.random.default_rng(seed)
    images = hits[0].shape[1]
    shares = generator.multinomial(images, counts / images, resamples) @ patterns.T / images  # [R, all S]
    ends = np.cumsum([len(one) for one in hits])[:-1]
    return [(part * _draw_seeds(generator, part.shape[1], resamples)).sum(1) for part in np.split(shares, ends, axis=1)]


def _cut_tails(shares: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Percentile interval of resampled shares, in percent."""
    tail = (1 - confidence) / 2
    low, high = (100 * np.quantile(shares, (tail, 1 - tail))).round(9)  # rounding errors are not above 0
    return float(low), float(high)


def _draw_seeds(generator: np.random.Generator, count: int, resamples: int) -> NDArray[np.float64]:
    """Weights of seeds, ``[R, S]``: S - 1 of S drawn with replacement."""
    draws = max(count - 1, 1)
    return generator.multinomial(draws, np.full(count, 1 / count), resamples) / draws


def _check_classes(
    labels: Classes, predictions: Classes, num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels ``[N]`` and predictions ``[S, N]``; ValueError for one that is no class."""
    truth = _as_labels(labels)
    found = _as_predictions(predictions, truth)
    for what, values in (("label", truth), ("prediction", found)):
        if values.min() < 0 or values.max() >= num_classes:
            odd = values[(values < 0) | (values >= num_classes)][0]
            raise ValueError(f"statistics: {what} {odd} is none of {num_classes} classes")
    return truth, found


def _as_labels(values: Classes) -> NDArray[np.int64]:
    labels = _as_integers("labels", values)
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f"statistics: labels must be [N] of one image or more, got {list(labels.shape)}")
    return labels


def _as_predictions(values: Classes, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """``[S, N]``."""
    predictions = np.atleast_2d(_as_integers("predictions", values))
    if predictions.ndim != 2 or not len(predictions) or predictions.shape[1] != len(labels):
        raise ValueError(
            f"statistics: predictions must be [N] or [seeds, N] for {len(labels)} labels, got {list(predictions.shape)}"
        )
    return predictions


def _as_integers(what: str, values: Any) -> NDArray[np.int64]:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"statistics: {what} must be integers, got {array.dtype}")
    return array.astype(np.int64)
