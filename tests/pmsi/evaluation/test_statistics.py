"""Intervals against a plain resampling loop and by their coverage; everything else against hand-worked cases."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pmsi.evaluation.statistics import (
    ClassAccuracy,
    Comparison,
    Confusion,
    Summary,
    compare_paired,
    list_classes,
    list_confusions,
    mcnemar,
    summarise,
)

ZEROS = np.zeros(400, dtype=np.int64)


def miss(count: int, total: int = 400) -> NDArray[np.int64]:
    """Predictions that are wrong for the first ``count`` of images of class 0."""
    return (np.arange(total) < count).astype(np.int64)


def test_mean_and_standard_deviation() -> None:
    assert summarise([82.0, 84.0]) == Summary(83.0, 2**0.5, 2)
    assert summarise([82.04]) == Summary(82.04, None, 1)
    assert [str(summarise(values)) for values in ([82.0, 84.0], [82.04])] == ["83.0 ± 1.4", "82.0"]
    with pytest.raises(ValueError, match="needs a value or more"):
        summarise([])


def test_difference_is_in_points_and_over_all_seeds() -> None:
    found = compare_paired(ZEROS, np.stack([miss(40), miss(60)]), miss(100))  # 90 % and 85 %, against 75 %
    assert found.difference == pytest.approx(12.5)
    assert (found.images, found.seeds, found.p_value) == (400, (2, 1), None)
    assert found.verdict == "better"
    assert compare_paired(ZEROS, miss(100), miss(40)).difference == pytest.approx(-15)


def test_the_interval_of_one_seed_is_that_of_the_formula() -> None:
    # 60 images that the first alone gets right, 20 that the second alone does: variance (80 - 40**2 / 400) / 400**2.
    first = np.concatenate([np.zeros(60), np.ones(20), np.zeros(320)]).astype(np.int64)
    second = np.concatenate([np.ones(60), np.zeros(20), np.zeros(320)]).astype(np.int64)
    found = compare_paired(ZEROS, first, second, resamples=100_000)
    error = 100 * (76 / 400**2) ** 0.5  # 2.18 points
    # Steps of 0.25 points, and quantiles of 100,000 draws: within 0.2 points of the normal interval.
    assert found.interval == pytest.approx((10 - 1.96 * error, 10 + 1.96 * error), abs=0.2)
    assert found.verdict == "better"


def resample_by_loop(hits: list[NDArray[np.bool_]], resamples: int) -> tuple[float, float]:
    """The bootstrap said plainly: pick images, pick seeds, take means."""
    generator = np.random.default_rng(1)
    count = hits[0].shape[1]
    found = []
    for _ in range(resamples):
        images = generator.integers(0, count, count)
        means = []
        for one in hits:
            picked = generator.integers(0, len(one), max(len(one) - 1, 1))
            means.append(one[picked][:, images].mean())
        found.append(100 * (means[0] - means[1]))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


@pytest.mark.parametrize(("first", "second"), [(1, 1), (3, 3), (2, 1), (1, 4)])
def test_the_bootstrap_is_the_plain_loop(first: int, second: int) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 300)
    hard = generator.random(300)  # how sure an image is to be got right
    guesses = []
    for seeds, better in ((first, 0.25), (second, 0.1)):
        rows = [generator.random(300) < hard + better + 0.05 * seed for seed in range(seeds)]
        guesses.append(np.where(np.stack(rows), labels, (labels + 1) % 5))
    found = compare_paired(labels, guesses[0], guesses[1], resamples=20_000)
    plain = resample_by_loop([one == labels for one in guesses], 20_000)
    # Both are quantiles of 20,000 draws, and differences come in steps of 1/3 point: within 0.5 points.
    assert found.interval == pytest.approx(plain, abs=0.5)


def simulate(runs: int, seeds: int, *, gain: float) -> list[Comparison]:
    """Two methods on fresh images; the first gets an image right with a chance that is ``gain`` higher."""
    generator = np.random.default_rng(0)
    found = []
    for run in range(runs):
        labels = np.zeros(400, dtype=np.int64)
        chance = generator.uniform(0.5, 0.95, 400)
        first = generator.random((seeds, 400)) >= chance + gain
        second = generator.random((seeds, 400)) >= chance
        found.append(compare_paired(labels, first.astype(int), second.astype(int), resamples=1000, seed=run))
    return found


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    # 1,000 runs at 95 %: a standard deviation of 0.7 %, so within 2.5 % (the share of 400 images is coarse).
    found = simulate(1000, 1, gain=0.05)
    assert np.mean([low <= 5 <= high for low, high in (one.interval for one in found)]) == pytest.approx(
        0.95, abs=0.025
    )


def test_methods_that_are_alike_are_seldom_told_apart() -> None:
    found = simulate(1000, 1, gain=0)
    # At most 5 %, and 2 % for the luck of 1,000 runs; McNemar's test makes it fewer.
    assert np.mean([one.verdict != "not told apart" for one in found]) <= 0.07
    found = simulate(300, 3, gain=0.05)
    # Several seeds: never too short here; 3 % for the luck of 300 runs.
    assert np.mean([one.interval[0] <= 5 <= one.interval[1] for one in found]) >= 0.92


def test_verdict_needs_an_interval_without_0_and_mcnemars_word() -> None:
    def judge(low: float, high: float, p_value: float | None) -> str:
        return Comparison((low + high) / 2, (low, high), 0.95, p_value, 100, (1, 1)).verdict

    assert [judge(0.1, 2, None), judge(-2, -0.1, None), judge(-0.1, 2, None)] == ["better", "worse", "not told apart"]
    assert [judge(0, 2, None), judge(-2, 0, None), judge(0, 0, None)] == ["not told apart"] * 3
    assert [judge(0.1, 2, 0.05), judge(-2, -0.1, 0.06)] == ["better", "not told apart"]
    five = compare_paired(ZEROS, miss(0), miss(5))  # the interval leaves 0 out, 2 / 2**5 does not convince
    assert five.interval[0] > 0
    assert (five.p_value, five.verdict) == (0.0625, "not told apart")


def test_equal_predictions_are_not_told_apart() -> None:
    same = np.stack([miss(30)] * 4)  # weights of thirds, which do not add up to 1 in binary
    found = compare_paired(ZEROS, same, same)
    assert (found.difference, found.interval, found.verdict) == (0, (0, 0), "not told apart")


def test_seeds_that_differ_widen_the_interval() -> None:
    def width(*counts: int) -> float:
        low, high = compare_paired(ZEROS, np.stack([miss(count) for count in counts]), miss(200)).interval
        return high - low

    assert width(40, 80, 120) > 2 * width(80, 80, 80)


def test_words() -> None:
    found = Comparison(1.25, (0.31, 2.149), 0.95, 0.0123, 100, (1, 1))
    assert found.sentence("RMG", "none") == (
        "RMG is better than none: +1.2 points (95 % interval +0.3 to +2.1; McNemar p = 0.012)."
    )
    found = Comparison(-0.4, (-1.5, 0.7), 0.99, None, 100, (3, 3))
    assert found.sentence("RMG", "none") == (
        "RMG and none are not told apart: -0.4 points (99 % interval -1.5 to +0.7)."
    )


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(3, 3) == 1  # twice the lower half holds the middle twice
    assert mcnemar(0, 6) == mcnemar(6, 0) == 2 / 64
    assert mcnemar(2, 8) == 2 * (1 + 10 + 45) / 1024
    assert mcnemar(1000, 1100) == pytest.approx(0.0308, abs=1e-3)  # normal: z = (100 - 1) / sqrt(2100) = 2.16
    with pytest.raises(ValueError, match="counts must be 0 or more, got -1 and 2"):
        mcnemar(-1, 2)


def test_one_seed_one_interval() -> None:
    one, again, other = (compare_paired(ZEROS, miss(50), miss(60), seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert one.p_value == other.p_value
    stacks = np.stack([miss(50), miss(70)]), np.stack([miss(60), miss(90)])
    intervals = [compare_paired(ZEROS, *stacks, seed=seed, resamples=100).interval for seed in (0, 1)]
    assert intervals[0] != intervals[1]


def test_three_thousand_images_take_less_than_a_second() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 100, 3000)
    right = generator.random((2, 3, 3000)) < 0.85
    guesses = np.where(right, labels, 0)
    start = time.process_time()
    compare_paired(labels, guesses[0], guesses[1])
    assert time.process_time() - start < 1  # 0.06 s here


def test_classes_by_hand() -> None:
    labels, predictions = [0, 0, 0, 1, 1], [[0, 0, 1, 1, 1], [0, 1, 1, 1, 0]]
    assert list_classes(labels, predictions, ["a", "b", "c"]) == [
        ClassAccuracy("a", 3, 50.0),
        ClassAccuracy("b", 2, 75.0),
        ClassAccuracy("c", 0, None),
    ]
    assert list_confusions(labels, predictions, ["a", "b", "c"]) == [
        Confusion("a", "b", 1.5, 50),
        Confusion("b", "a", 0.5, 25),
    ]


def test_confusions_by_hand() -> None:
    labels, predictions = [0, 0, 0, 0, 1, 1, 2, 2], [1, 1, 2, 0, 1, 0, 0, 2]
    assert list_confusions(labels, predictions, ["a", "b", "c"]) == [
        Confusion("a", "b", 2, 50),
        Confusion("a", "c", 1, 25),
        Confusion("b", "a", 1, 50),
        Confusion("c", "a", 1, 50),
    ]
    assert len(list_confusions(labels, predictions, ["a", "b", "c"], count=2)) == 2
    assert list_confusions([0, 1], [0, 1], ["a", "b"]) == []


def test_ten_thousand_classes_need_no_table_of_all_pairs() -> None:
    labels = np.arange(10_000)
    tracemalloc.start()
    try:
        (worst,) = list_confusions(labels, np.where(labels == 7, 9_999, labels), [*map(str, labels)])
        accuracies = list_classes(labels, labels, [*map(str, labels)])
        assert tracemalloc.get_traced_memory()[1] < 50e6  # a table takes 800 MB
    finally:
        tracemalloc.stop()
    assert worst == Confusion("7", "9999", 1, 100)
    assert [one.accuracy for one in accuracies] == [100] * 10_000


MAKERS: list[Callable[[torch.Tensor], Any]] = [
    torch.Tensor.clone,
    torch.Tensor.tolist,
    torch.Tensor.numpy,
    torch.Tensor.int,
]


def test_tensors_arrays_and_lists_are_alike() -> None:
    labels, guesses = torch.arange(6) % 3, torch.tensor([[0, 1, 2, 0, 1, 1], [0, 1, 2, 1, 1, 1]])
    found = [compare_paired(make(labels), make(guesses), make(guesses[0])) for make in MAKERS]
    assert found == [found[0]] * 4


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ([0, 1], [0, 1, 1], [0, 1]),
            ValueError,
            r"predictions must be \[N\] or \[seeds, N\] for 2 labels, got \[1, 3\]",
        ),
        (([], [], []), ValueError, r"labels must be \[N\] of one image or more, got \[0\]"),
        (([[0, 1]], [0, 1], [0, 1]), ValueError, r"labels must be \[N\] .* got \[1, 2\]"),
        (([0, 1], np.zeros((0, 2), int), [0, 1]), ValueError, r"got \[0, 2\]"),
        (([0, 1], [0.0, 1.0], [0, 1]), TypeError, "predictions must be integers, got float64"),
        (([0.5, 1], [0, 1], [0, 1]), TypeError, "labels must be integers, got float64"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple[Any, Any, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compare_paired(*arguments)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1, got 95"):
        compare_paired([0], [0], [0], confidence=95)
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        compare_paired([0], [0], [0], resamples=0)
    with pytest.raises(ValueError, match="label 2 is none of 2 classes"):
        list_classes([0, 2], [0, 1], ["a", "b"])
    with pytest.raises(ValueError, match="prediction -1 is none of 2 classes"):
        list_confusions([0, 1], [0, -1], ["a", "b"])
