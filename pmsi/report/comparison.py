"""The page and the tables that show a comparison beside the paper's."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import rich.table
from markupsafe import Markup
from matplotlib.figure import Figure
from torch import Tensor

from pmsi.paper import TABLES
from pmsi.recipe import METHODS, RECIPES
from pmsi.report.figures import encode
from pmsi.runtime.files import write_text

SCHEMA = 1

LABELS = {
    "none": "none (baseline)",
    "cutmix": "CutMix",
    "mixup": "MixUp",
    "snapmix": "SnapMix",
    "jigsaw": "jigsaw",
    "rmg": "RMG (the paper's)",
}
# Okabe and Ito's colours, told apart by readers with any colour vision.
_COLOURS: dict[str, str] = dict(
    zip(METHODS, ("#7f7f7f", "#e69f00", "#56b4e9", "#cc79a7", "#009e73", "#d55e00"), strict=True)
)


@dataclass(frozen=True)
class Row:
    """One method, accuracies in percent: the paper's, and the mean and standard deviation of our runs."""

    method: str
    label: str
    paper: tuple[float, float]  # Concat, Mix
    runs: list[dict[str, Any]]

    def mean(self, what: str) -> float | None:
        """Of "concat" or "mix" over seeds; None without a run."""
        return statistics.fmean(run[what] for run in self.runs) if self.runs else None

    def spread(self, what: str) -> float | None:
        """Standard deviation over seeds; None with fewer than two."""
        return statistics.stdev(run[what] for run in self.runs) if len(self.runs) > 1 else None

    def show(self, what: str) -> str:
        """Mean and, with several seeds, standard deviation."""
        mean, spread = self.mean(what), self.spread(what)
        if mean is None:
            return "not run"
        return f"{mean:.1f}" if spread is None else f"{mean:.1f} ± {spread:.1f}"


def list_rows(results: dict[str, Any]) -> list[Row]:
    """The rows of Table IV in the paper's order.

    Raises:
        ValueError: the results were written by another version.
    """
    if results.get("schema") != SCHEMA:
        raise ValueError(f"report: results must have schema {SCHEMA}, got {results.get('schema')!r}; run them again")
    runs = {row["method"]: row["runs"] for row in results["rows"]}
    figure = TABLES[4].figure
    return [
        Row(method, LABELS[method], (figure(method, "Concat"), figure(method, "Mix")), runs.get(method, []))
        for method in METHODS
    ]


def rich_table(results: dict[str, Any]) -> rich.table.Table:
    """Table IV for a terminal."""
    table = rich.table.Table(title=f"Table IV, accuracy in % ({_summarise_run(results)})")
    table.add_column("augmentation")
    for name in ("paper Concat", "paper Mix", "ours Concat", "ours Mix"):
        table.add_column(name, justify="right")
    for row in list_rows(results):
        table.add_row(row.label, *(f"{figure:.1f}" for figure in row.paper), row.show("concat"), row.show("mix"))
    return table


def write_report(results: dict[str, Any], strips: dict[str, Tensor], path: Path) -> None:
    """Write the page: one file that needs no other.

    Args:
        results: what ``results.json`` holds.
        strips: per method the training images as the network saw them, uint8 ``[phases * K, 3, H, W]``.
        path: of the page.
    """
    rows = list_rows(results)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pmsi.report"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        results=results,
        rows=rows,
        summary=_summarise_run(results),
        order=describe_order(rows, results["data"]["test_images"]),
        error=standard_error(rows, results["data"]["test_images"]),
        differences=list_differences(results),
        gains=[(row, _gain(row, rows[0])) for row in rows],
        curves=_draw_curves(rows),
        strips=[_show_strip(row, strips[row.method], results["strips"]) for row in rows if row.method in strips],
        several=any(len(row.runs) > 1 for row in rows),
    )
    write_text(path, page)


def standard_error(rows: Sequence[Row], test_images: int) -> float | None:
    """Of one accuracy, in points: binomial, at the mean Mix accuracy."""
    means = [mean for row in rows if (mean := row.mean("mix")) is not None]
    if not means:
        return None
    share = statistics.fmean(means) / 100
    return 100 * math.sqrt(share * (1 - share) / test_images)


def describe_order(rows: Sequence[Row], test_images: int) -> str:
    """What the figures say about the paper's order, and no more."""
    ours = {row.label: mean for row in rows if (mean := row.mean("mix")) is not None}
    if len(ours) < 2:
        return "Fewer than two rows are finished, so there is no order to compare yet."
    paper = sorted((row for row in rows if row.label in ours), key=lambda row: -row.paper[1])
    expected, found = [row.label for row in paper], sorted(ours, key=lambda label: -ours[label])
    error = standard_error(rows, test_images)
    assert error is not None
    span = max(ours.values()) - min(ours.values())
    noise = 2 * math.sqrt(2) * error
    text = f"By Mix the paper's order is {' > '.join(expected)}; here it is {' > '.join(found)}. "
    text += "The order is the paper's. " if expected == found else "The paper's order is not reproduced. "
    text += (
        f"Best and worst row lie {span:.1f} points apart; two rows that differ by less than about {noise:.1f} points "
    )
    text += f"are not told apart by {test_images} test images and one seed. "
    if expected != found:
        text += (
            "Augmentations that make training harder pay off over long training; a short one favours none or little."
        )
    return text


def list_differences(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Where the protocol is not the paper's: (what, the paper, here)."""
    recipe, data = results["recipe"], results["data"]
    seeds = sorted({run["seed"] for row in results["rows"] for run in row["runs"]})
    pairs = [
        ("data", _describe_data(_find_papers_data(data["name"])), _describe_data(data)),
        ("backbone weights", "ImageNet", "random" if results["weights"] == "none" else "ImageNet"),
        ("reported epoch", "best on the test images, each column by itself (its code)", "last"),
        ("seeds", "not said", ", ".join(map(str, seeds)) or "none"),
    ]
    for name, theirs in RECIPES["paper"].to_dict().items():
        if name in recipe and name != "augmentation":
            pairs.append((name.replace("_", " "), _show_setting(name, theirs), _show_setting(name, recipe[name])))
    return [pair for pair in pairs if pair[1] != pair[2]]


def _show_setting(name: str, value: Any) -> str:
    if value is None:
        # Widths are MobileNetV2's, by the published rule.
        widths = {"feature_width": "640", "hidden_width": "320"}
        words = {"batch_norm_images": "a process's own", "classes_per_batch": "any", "ema_decay": "none"}
        return {**widths, **words}[name]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _find_papers_data(name: str) -> dict[str, Any]:
    """Table I's row of the same data set; CUB-200-2011, which the paper's studies are on, for others."""
    chosen = name if name in TABLES[1].rows else "cub"
    classes, train, test = TABLES[1].rows[chosen].values
    return {"name": chosen, "classes": classes, "train_images": train, "test_images": test}


def _describe_data(data: dict[str, Any]) -> str:
    return f"{data['name']}: {data['classes']} classes, {data['train_images']} / {data['test_images']} images"


def _summarise_run(results: dict[str, Any]) -> str:
    recipe, data = results["recipe"], results["data"]
    return f"{data['name']}, {data['classes']} classes, {recipe['crop']} px, {recipe['epochs']} epochs"


def _gain(row: Row, baseline: Row) -> tuple[str, str]:
    """Mix against the baseline: in the paper, and here."""
    paper = f"{row.paper[1] - baseline.paper[1]:+.1f}"
    ours, base = row.mean("mix"), baseline.mean("mix")
    if row is baseline:
        return "", ""
    return paper, "" if ours is None or base is None else f"{ours - base:+.1f}"


def _draw_curves(rows: Sequence[Row]) -> Markup:
    """Test accuracy and training loss by epoch, as inline SVG; every seed is a line."""
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "pmsi", "font.size": 10}):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        accuracy, loss = figure.subplots(1, 2)
        for row in rows:
            for number, run in enumerate(row.runs):
                epochs = [record["epoch"] for record in run["curve"]]
                style = {"color": _COLOURS[row.method], "lw": 1.8, "label": row.label if number == 0 else None}
                accuracy.plot(epochs, [record["mix"] for record in run["curve"]], marker="o", ms=3, **style)
                loss.plot(epochs, [record["losses"][-1] for record in run["curve"]], marker="o", ms=3, **style)
        accuracy.set(xlabel="epoch", ylabel="test accuracy, Mix, %")
        loss.set(xlabel="epoch", ylabel="training loss of the concat phase")
        for axes in (accuracy, loss):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            axes.xaxis.get_major_locator().set_params(integer=True)
        if accuracy.get_lines():
            accuracy.legend(frameon=False, fontsize=9)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    svg = file.getvalue()
    return Markup(svg[svg.index("<svg") :])


@dataclass(frozen=True)
class _Strip:
    label: str
    rows: list[tuple[str, str, int, int]]  # caption, data URI, width and height in px


def _show_strip(row: Row, images: Tensor, captions: dict[str, list[str]]) -> _Strip:
    names = captions[row.method]
    pictures = [encode(part) for part in images.chunk(len(names))]
    return _Strip(row.label, [(name, *picture) for name, picture in zip(names, pictures, strict=True)])
