"""Answers of one network on a page: top-5, calibration, all confusions, and the worst errors."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from pmsi.evaluation.calibration import Answers, measure_calibration
from pmsi.evaluation.statistics import count_confusions
from pmsi.experiments.folder import Predictions
from pmsi.experiments.pictures import Errors
from pmsi.experiments.results import Study, list_runs
from pmsi.report.figures import draw_svg, encode, finish_axes, overlay_heatmap, use_style
from pmsi.report.table import Table, render_part
from pmsi.runtime.files import write_text

_NAMED = 30  # classes up to which the picture of confusions names each
_MOST_CLASSES = 1000  # of a square table: that of 10,000 would take 200 MB


def find_predictions(study: Study) -> Predictions | None:
    """Predictions of a study's one run, with its best classes; None where they were not kept."""
    found = [study.predictions.get(run["folder"]) for run in list_runs(study.results["tables"])]
    return found[0] if len(found) == 1 and found[0] is not None and found[0].answers is not None else None


def show_answers(study: Study) -> list[Markup]:
    """Top-5 and calibration, the picture of all confusions with the figures to download, and the worst errors."""
    found = find_predictions(study)
    if found is None or found.answers is None:
        return []
    names, answers = study.classes, found.answers
    hits = answers.classes[:, 0] == found.labels
    parts = [
        answers_table(answers, found.labels).to_html(),
        show_reliability(answers, hits),
    ]
    if len(names) <= _MOST_CLASSES:
        table = count_confusions(found.labels, answers.classes[:, 0], len(names))
        uri = "data:text/csv;base64," + base64.b64encode(_to_csv(table, names).encode()).decode()
        parts += [
            render_part("heading", "Confusions"),
            show_confusions(table, names),
            render_part("download", "All confusions as CSV", "confusions.csv", uri),
        ]
    if study.errors is not None and len(study.errors.truth):
        parts += [render_part("heading", "Worst errors"), show_errors(study.errors, names)]
    return parts


def answers_table(answers: Answers, labels: Tensor) -> Table:
    """Share of images whose class is the best or among the five best, and calibration errors."""
    ranks = answers.classes.shape[1]
    hits = answers.classes == labels[:, None]
    before, after = (
        measure_calibration(sure.tolist(), hits[:, 0].tolist()).error
        for sure in (answers.raw, answers.probabilities[:, 0])
    )
    rows = (
        ("the best class is right, %", f"{100 * hits[:, 0].double().mean():.2f}"),
        (f"one of the best {ranks} is right, %", f"{100 * hits.any(1).double().mean():.2f}"),
        ("calibration error as the network is, points", f"{before:.2f}"),
        ("calibration error with temperature, points", f"{after:.2f}"),
        ("temperature", f"{answers.temperature:.3f}"),
    )
    note = (
        "The calibration error is the mean distance of confidence from accuracy over ten bins. Each half of the test "
        "images is scaled by the temperature that was fitted to the other half; photographs to come by the one that "
        "was fitted to all."
    )
    return Table("Five best classes, and confidence.", ("test images", "value"), rows, notes=(note,))


def show_reliability(answers: Answers, hits: Tensor) -> Markup:
    """Accuracy over confidence, before and after calibration, as inline SVG."""
    with use_style():
        figure = Figure(figsize=(4.6, 3), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], ":", color="#7f7f7f", lw=1.2)
        for label, sure, color in (
            ("as the network is", answers.raw, "#e69f00"),
            ("with temperature", answers.probabilities[:, 0], "#0072b2"),
        ):
            bins = measure_calibration(sure.tolist(), hits.tolist()).bins
            points = ([100 * one.confidence for one in bins], [100 * one.accuracy for one in bins])
            axes.plot(*points, "-o", color=color, lw=1.8, ms=4, label=label)
        axes.legend(frameon=False, fontsize=9)
        axes.set(xlim=(0, 100), ylim=(0, 100), ylabel="accuracy, %")
        finish_axes(axes, "confidence, %")
        return render_part("drawing", "Accuracy over confidence, in bins", draw_svg(figure))


def show_confusions(table: NDArray[np.float64], names: Sequence[str]) -> Markup:
    """Share of each class (row) that is taken for each class (column), as inline SVG."""
    totals = table.sum(1, keepdims=True)
    shares = np.divide(100 * table, totals, out=np.zeros_like(table), where=totals > 0)
    few = len(names) <= _NAMED
    with use_style():
        side = 2.5 + (0.22 * len(names) if few else 5)
        figure = Figure(figsize=(side, 0.85 * side), layout="constrained")
        axes = figure.subplots()
        picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
        if few:
            ticks = range(len(names))
            axes.set_xticks(ticks, [_shorten(name) for name in names], rotation=90, fontsize=7, parse_math=False)
            axes.set_yticks(ticks, [_shorten(name) for name in names], fontsize=7, parse_math=False)
        axes.set(xlabel="taken for", ylabel="class")
        figure.colorbar(picture, ax=axes, label="% of the class", shrink=0.7)
        return render_part("drawing", f"Confusions of {len(names)} classes", draw_svg(figure))


def show_errors(errors: Errors, names: Sequence[str]) -> Markup:
    """Wrong answers that the network was surest of: each image, and beside it Grad-CAM of the class it answered."""
    shown = []
    for row in range(len(errors.truth)):
        image, truth, answer = (
            errors.images[row : row + 1],
            names[int(errors.truth[row])],
            names[int(errors.predicted[row])],
        )
        pair = image
        if errors.maps.shape[1]:
            pair = torch.cat([image, overlay_heatmap(image, errors.maps[row : row + 1])])
        caption = f"{truth}, taken for {answer} ({100 * errors.confidences[row]:.0f} %)"
        shown.append(render_part("figure", caption, caption, *encode(pair)))
    return render_part("gallery", shown)


def write_confusions(study: Study, path: Path) -> None:
    """Write all confusions as CSV: a row for each class with images, a column for each class that it is taken for.

    Nothing is written where the predictions were not kept, or for more than a thousand classes.
    """
    found, names = find_predictions(study), study.classes
    if found is not None and found.answers is not None and len(names) <= _MOST_CLASSES:
        write_text(path, _to_csv(count_confusions(found.labels, found.answers.classes[:, 0], len(names)), names))


def _to_csv(table: NDArray[np.float64], names: Sequence[str]) -> str:
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["class", *names])
    rows.writerows([name, *(int(count) for count in row)] for name, row in zip(names, table, strict=True))
    return file.getvalue()


def _shorten(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:22]}.."
