"""Tables and sentences of a report from measured values; rendered as HTML, for a terminal or as Markdown later."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pmsi.evaluation.robustness import Robustness
from pmsi.evaluation.statistics import ClassAccuracy, Comparison, Confusion, Summary
from pmsi.paper import TABLES, PaperTable
from pmsi.report.table import Table

CORRUPTION_LABELS = {
    "clean": "clean",
    "color_jitter": "colour jitter",
    "gaussian_noise": "Gaussian noise, clipped",
    "published_noise": "Gaussian noise that wraps",
}
_ROMAN = ("", "I", "II", "III", "IV", "V", "VI", "VII")


class PairedTest(NamedTuple):
    """Comparison of two rows on the same test images, and the difference of the paper's figures, points."""

    first: str
    second: str
    found: Comparison
    paper: float | None = None


def compare_with_paper(
    number: int,
    ours: Mapping[str, Mapping[str, Summary]],
    *,
    labels: Mapping[str, str] | None = None,
    columns: Sequence[str] | None = None,
    marked: Sequence[str] = (),
) -> Table:
    """Set one of the paper's tables beside ours; rows that the paper does not have come last.

    Args:
        number: of the paper's table, 1 to 7.
        ours: by row and column of that table in `pmsi.paper`, what was measured; what is missing was not run.
        labels: names to show for rows; those not named are shown as printed.
        columns: which of the table's columns; None takes all.
        marked: rows that stand out.

    Raises:
        ValueError: a column that the paper's table does not have.
    """
    table = TABLES[number]
    columns = table.columns if columns is None else columns
    odd = [name for name in [*columns, *(one for row in ours.values() for one in row)] if name not in table.columns]
    if odd:
        raise ValueError(f"report: Table {_ROMAN[number]} has no column {odd[0]!r}; it has {', '.join(table.columns)}")
    names = [*table.rows, *(name for name in ours if name not in table.rows)]
    printed = {name: row.label for name, row in table.rows.items()}
    shown = {name: (labels or {}).get(name, printed.get(name, name)) for name in names}
    rows = tuple(
        (
            shown[name],
            *(_show_paper(table, name, column) for column in columns),
            *(_show_ours(table, ours, name, column) for column in columns),
        )
        for name in names
    )
    head = (table.head, *(f"paper {name}" for name in columns), *(f"ours {name}" for name in columns))
    caption = f"Table {_ROMAN[number]}. {table.title}. Paper: {table.unit}."
    notes = (table.note,) if table.note else ()
    return Table(caption, head, rows, frozenset(shown[name] for name in marked), notes)


def comparison_table(tests: Sequence[PairedTest]) -> Table:
    """Paired comparisons: first minus second, and where the paper has both rows, whether their order is the same."""
    rows: list[tuple[str, ...]] = []
    for first, second, found, paper in tests:
        low, high = found.interval
        p_value = "" if found.p_value is None else f"{found.p_value:.2g}" if found.p_value > 1e-99 else "< 1e-99"
        words = {"better": f"{first} is better", "worse": f"{first} is worse"}.get(found.verdict, found.verdict)
        ours = (f"{found.difference:+.1f}", f"{low:+.1f} to {high:+.1f}", p_value, words)
        theirs = "" if paper is None else f"{paper:+.1f}"
        rows.append((f"{first} vs {second}", theirs, *ours, _compare_order(found, paper)))
    shares = sorted({f"{100 * one.found.confidence:.3g} %" for one in tests})
    caption = "Differences on the same test images, in points, with bootstrap intervals over images and seeds."
    interval = f"interval ({', '.join(shares)})"
    head: tuple[str, ...] = ("methods", "paper", "difference", interval, "McNemar p", "verdict", "paper's order")
    if all(one.paper is None for one in tests):
        head, rows = (head[0], *head[2:-1]), [(row[0], *row[2:-1]) for row in rows]  # no columns for nothing
    return Table(caption, head, tuple(rows))


def _compare_order(found: Comparison, paper: float | None) -> str:
    """Words on whether two rows stand in the paper's order; none where the paper does not have both."""
    if paper is None or found.verdict == "not told apart":
        return "" if paper is None else found.verdict
    return "same" if found.difference * paper > 0 else "other"


def seeds_table(tests: Mapping[int, Sequence[PairedTest]]) -> Table:
    """Paired comparisons in each seed alone: a statement about these two networks, not about other seeds.

    Args:
        tests: those of each seed.
    """
    pairs = list(dict.fromkeys((one.first, one.second) for found in tests.values() for one in found))
    rows = []
    for pair in pairs:
        cells = []
        for found in tests.values():
            one = next((test.found for test in found if (test.first, test.second) == pair), None)
            words = "{:+.1f} ({:+.1f} to {:+.1f}), {}"
            cells.append("" if one is None else words.format(one.difference, *one.interval, one.verdict))
        rows.append((" vs ".join(pair), *cells))
    shares = sorted({f"{100 * one.found.confidence:.3g} %" for found in tests.values() for one in found})
    caption = f"In each seed alone, in points, with bootstrap intervals over images ({', '.join(shares)})."
    return Table(caption, ("methods", *(f"seed {seed}" for seed in tests)), tuple(rows))


def describe_order(
    number: int, ours: Mapping[str, Summary], test_images: int, labels: Mapping[str, str] | None = None
) -> str:
    """Sentences that compare the order of rows by Mix accuracy with the paper's, and say what is not told apart.

    Args:
        number: of the paper's table.
        ours: Mix accuracy by row, percent; rows that the paper does not have are left out.
        test_images: of each accuracy.
        labels: names to show for rows.
    """
    table = TABLES[number]
    means = {row: one.mean for row, one in ours.items() if row in table.rows}
    if len(means) < 2:
        return "Fewer than two rows are finished, so there is no order to compare yet."

    def name(rows: Sequence[str]) -> str:
        return " > ".join((labels or {}).get(row, table.rows[row].label) for row in rows)

    expected = sorted((row for row in table.rows if row in means), key=lambda row: -table.figure(row, "Mix"))
    found = sorted(means, key=lambda row: -means[row])
    span = max(means.values()) - min(means.values())
    noise = 2 * math.sqrt(2) * standard_error(list(means.values()), test_images)
    same = expected == found
    text = f"By Mix the paper's order is {name(expected)}; here it is {name(found)}. "
    text += "The order is the paper's. " if same else "The paper's order is not reproduced. "
    text += (
        f"Best and worst row lie {span:.1f} points apart; two rows that differ by less than about {noise:.1f} points "
        f"are not told apart by {test_images} test images and one seed."
    )
    if not same:
        text += (
            " Augmentations that make training harder pay off over long training; a short one favours none or little."
        )
    return text


def standard_error(accuracies: Sequence[float], test_images: int) -> float:
    """Binomial standard error of one accuracy at the mean of ``accuracies``, in points.

    >>> round(standard_error([80.0], 400), 2)
    2.0
    """
    share = statistics.fmean(accuracies) / 100
    return 100 * math.sqrt(share * (1 - share) / test_images)


def accuracy_table(run: Mapping[str, Any], *, progressive: bool, test_images: int) -> Table:
    """Accuracies of one run: its stages, Concat, and Mix where the stages are trained."""
    last = 5  # stages are numbered as the paper does, the deepest is the fifth
    stages = run["stages"]
    rows = (
        [(f"stage {k}", accuracy) for k, accuracy in enumerate(stages, last + 1 - len(stages))] if progressive else []
    )
    rows.append(("Concat", run["concat"]))
    if progressive:
        rows.append(("Mix", run["mix"]))
    cells = tuple((name, f"{accuracy:.2f}") for name, accuracy in rows)
    error = standard_error([run["mix"]], test_images)
    note = f"One accuracy has a binomial standard error of about {error:.1f} points ({test_images} test images)."
    return Table("Top-1 accuracy on the test images, %.", ("output", "accuracy"), cells, frozenset({"Mix"}), (note,))


def runs_table(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """List every run by label: accuracies of all outputs, the best epoch on the test images, and the time it took."""
    cells = tuple(
        (
            label,
            str(run["seed"]),
            " / ".join(f"{accuracy:.1f}" for accuracy in run["stages"]),
            f"{run['concat']:.1f}",
            f"{run['mix']:.1f}",
            f"{run['best_mix']:.1f} ({run['best_epoch']})",
            f"{run['seconds']:.0f}",
        )
        for label, runs in rows.items()
        for run in runs
    )
    head = ("run", "seed", "stages, shallow to deep", "Concat", "Mix", "best Mix (epoch)", "seconds")
    return Table("Accuracy on the test images, %.", head, cells)


def classes_table(rows: Mapping[str, Sequence[ClassAccuracy]]) -> Table:
    """Accuracy of every class.

    Args:
        rows: by label of a row, all classes in the same order.
    """
    by_class = zip(*rows.values(), strict=True)
    cells = tuple(
        (
            classes[0].name,
            str(classes[0].images),
            *("-" if one.accuracy is None else f"{one.accuracy:.0f}" for one in classes),
        )
        for classes in by_class
    )
    return Table(
        f"Found of the test images of each of {len(cells)} classes, %.", ("class", "test images", *rows), cells
    )


def hardest_classes_table(classes: Sequence[ClassAccuracy], *, count: int = 10) -> Table:
    """The classes with the lowest accuracies."""
    scored = [(one.accuracy, one) for one in classes if one.accuracy is not None]
    hardest = sorted(scored, key=lambda pair: pair[0])[:count]
    rows = tuple((one.name, str(one.images), f"{accuracy:.0f}") for accuracy, one in hardest)
    return Table(f"The {len(rows)} hardest of {len(classes)} classes.", ("class", "test images", "found, %"), rows)


def confusions_table(confusions: Sequence[Confusion]) -> Table:
    """The most frequent confusions: true class, predicted class."""
    rows = tuple((one.truth, one.predicted, f"{one.images:.3g}", f"{one.share:.0f}") for one in confusions)
    head = ("class", "taken for", "test images", "of the class, %")
    return Table("The most frequent confusions; images are means over seeds.", head, rows)


def pointing_table(pointing: Mapping[str, Any]) -> Table:
    """Pointing game: how often points hit the bird's box, and a part of it."""
    rows = tuple(
        (name, *("-" if hit is None else f"{hit:.1f}" for hit in hits)) for name, hits in pointing["points"].items()
    )
    caption = f"Pointing game on {pointing['images']} test images, % that hit."
    return Table(caption, ("where", "bird's box", "within 15 px of a part"), rows)


def robustness_table(found: Mapping[str, Robustness]) -> Table:
    """Mix accuracy under corruption, beside the paper's on CUB; changes are computed on both sides.

    Args:
        found: by the name of a model, what was measured.

    Raises:
        ValueError: no model, or models under different corruptions.
    """
    table = TABLES[7]
    kinds = {tuple(one.corrupted) for one in found.values()}
    if len(kinds) != 1:
        raise ValueError(f"report: needs models under the same corruptions, got {sorted(kinds) or 'none'}")
    rows = []
    for name in ("clean", *kinds.pop()):
        paper = ["", ""]
        if name in table.rows:
            paper = [_show_paper(table, name, column) for column in ("CUB baseline", "CUB RMG-PMSI")]
        ours = [
            f"{one.clean.mix:.1f}" if name == "clean" else f"{one.corrupted[name].mix:.1f} ({one.change(name):+.1f})"
            for one in found.values()
        ]
        rows.append((CORRUPTION_LABELS.get(name, name), *paper, *ours))
    head = ("test images", "paper baseline", "paper RMG-PMSI", *(f"ours {name}" for name in found))
    slips = tuple(
        f"The paper prints {slip.printed:+.1f} for {CORRUPTION_LABELS[slip.row]}, {slip.column}; by its own accuracies"
        f" it is {slip.computed:+.1f}."
        for slip in table.list_slips()
    )
    caption = "Accuracy on corrupted test images, % (Mix), and its change in points."
    return Table(caption, head, tuple(rows), notes=(table.note, *slips))


def _show_ours(table: PaperTable, ours: Mapping[str, Mapping[str, Summary]], row: str, column: str) -> str:
    """Our figure; "-" where there is none and the paper has none either."""
    if column in ours.get(row, {}):
        return str(ours[row][column])
    known = row in table.rows and table.rows[row].values[table.columns.index(column)] is not None
    return "not run" if known else "-"


def _show_paper(table: PaperTable, row: str, column: str) -> str:
    """A printed figure, with its change against the row's base where the paper prints one."""
    value = table.rows[row].values[table.columns.index(column)] if row in table.rows else None
    if value is None:
        return "-"
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    return text if table.rows[row].base is None else f"{text} ({table.change(row, column):+.1f})"
