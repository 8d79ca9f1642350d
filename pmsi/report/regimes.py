"""Results of the study "regimes": accuracies with intervals, paired tests with "none", and sentences about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from pmsi.evaluation.statistics import Comparison, Verdict, compare_paired, measure_interval, summarise
from pmsi.experiments.results import Study
from pmsi.experiments.tables import Point, Row, table_rows
from pmsi.recipe import Method
from pmsi.report.table import Table
from pmsi.training.phases import AUGMENTATIONS

# Words below a plot.
INTERVALS = "Means over seeds, with 95 % bootstrap intervals over test images and seeds, drawn side by side."


class Measured(NamedTuple):
    """Accuracy of a method at a point of the grid: mean over seeds and its 95 % interval, percent."""

    method: Method
    per_class: int
    epochs: int
    accuracy: float
    low: float
    high: float


def name_method(method: Method) -> str:
    """Short name of an augmentation, for a legend or a sentence."""
    return AUGMENTATIONS[method].label.partition(" (")[0]


def measure_points(study: Study) -> list[Measured]:
    """Accuracy of every point with finished runs: Mix, with a bootstrap interval over images and seeds."""
    return [
        Measured(*point, _average(_list_runs(study, point)), *measure_interval(*joined))
        for point, joined in _join_points(study).items()
    ]


def compare_with_none(study: Study) -> dict[Point, Comparison]:
    """Paired test of every other method with "none" at the same point; all intervals together hold with 95 %."""
    joined = _join_points(study)
    bases = {point: point._replace(method="none") for point in joined if point.method != "none"}
    pairs = {point: base for point, base in bases.items() if base in joined}
    share = 1 - 0.05 / max(len(pairs), 1)
    return {point: compare_paired(*joined[point], joined[base][1], confidence=share) for point, base in pairs.items()}


def regimes_table(study: Study) -> Table:
    """Accuracy of each method at each point, its difference from "none" on the same test images, and the verdict."""
    tests, points = compare_with_none(study), study.grid.list_points()
    methods = list(dict.fromkeys(point.method for point in points))
    rivals = [method for method in reversed(methods) if method != "none" and "none" in methods]
    rows, marked = [], []
    for per_class, epochs in dict.fromkeys((point.per_class, point.epochs) for point in points):
        cells = [f"{per_class}, {epochs}"]
        for method in methods:
            runs = _list_runs(study, Point(method, per_class, epochs))
            cells.append(f"{_average(runs):.1f}" if runs else "not run")
        for method in rivals:
            test = tests.get(Point(method, per_class, epochs))
            cells += ["-", "-"] if test is None else [_show_difference(test), test.verdict]
            marked += cells[:1] if test is not None and (method, test.verdict) == ("rmg", "better") else []
        rows.append(tuple(cells))
    names = [name_method(method) for method in rivals]
    head = (
        "images a class, epochs",
        *(name_method(method) for method in methods),
        *(cell for name in names for cell in (f"{name} minus none", f"{name} is")),
    )
    caption = "Mean accuracy on the test images, % (Mix), and differences on the same test images in points"
    shares = {f"{100 * test.confidence:.4g}" for test in tests.values()}
    caption += f", with bootstrap intervals over images and seeds ({', '.join(shares)} %)." if shares else "."
    return Table(caption, head, tuple(rows), frozenset(marked), tuple(describe_crossings(study, tests)))


def describe_crossings(study: Study, tests: Mapping[Point, Comparison]) -> list[str]:
    """One sentence for each number of images: from how many epochs on RMG is better than none."""
    methods, sentences = study.grid.methods, []
    if "rmg" in methods and "none" in methods:
        for per_class in sorted({*study.grid.per_class}):
            verdicts = {
                point.epochs: test.verdict
                for point, test in tests.items()
                if point.method == "rmg" and point.per_class == per_class
            }
            sentences.append(describe_crossing(per_class, verdicts))
    return sentences


def describe_crossing(per_class: int, verdicts: Mapping[int, Verdict]) -> str:
    """Sentence on the number of epochs from which on RMG is better than none.

    Args:
        per_class: training images of each class.
        verdicts: on RMG, by the number of epochs.

    >>> describe_crossing(10, {25: "worse", 50: "not told apart", 100: "better", 200: "better"})
    'With 10 images a class RMG is better than none from 100 epochs on; worse at 25, not told apart at 50.'
    """
    start = f"With {per_class} images a class"
    if not verdicts:
        return f"{start} RMG and none have not been trained to any same length yet."
    epochs = sorted(verdicts)
    tail = next((k for k in range(len(epochs)) if all(verdicts[one] == "better" for one in epochs[k:])), len(epochs))
    places = {
        verdict: [str(one) for one in epochs[:tail] if verdicts[one] == verdict]
        for verdict in ("worse", "not told apart", "better")
    }
    rest = ", ".join(f"{verdict} at {' and '.join(found)}" for verdict, found in places.items() if found)
    if tail == 0:
        return f"{start} RMG is better than none at every length tried, from {epochs[0]} epochs on."
    if tail < len(epochs):
        return f"{start} RMG is better than none from {epochs[tail]} epochs on; {rest}."
    some = "from no length on" if places["better"] else "at no length tried"
    return f"{start} RMG is better than none {some}: {rest} epochs."


def _list_runs(study: Study, point: Point) -> Sequence[Mapping[str, Any]]:
    runs: Sequence[Mapping[str, Any]] = study.results["tables"]["regimes"].get(point.row, ())
    return runs


def _average(runs: Sequence[Mapping[str, Any]]) -> float:
    return summarise([run["mix"] for run in runs]).mean


def _join_points(study: Study) -> dict[Point, tuple[Tensor, Tensor]]:
    """Labels and predictions of every point with finished runs."""
    rows = table_rows("regimes", Row(study.base), study.grid)
    found = {
        point: study.join_predictions(rows[point.row].recipe, _list_runs(study, point))
        for point in study.grid.list_points()
    }
    return {point: joined for point, joined in found.items() if joined is not None}


def _show_difference(test: Comparison) -> str:
    low, high = test.interval
    return f"{test.difference:+.1f} ({low:+.1f} to {high:+.1f})"
