"""Tables and pictures that a page, a terminal or a README can show: each is a value first, then rendered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def compare_with_paper(
    number: int,
    ours: Mapping[str, Mapping[str, Summary]],
    *,
    labels: Mapping[str, str] | None = None,
    columns: Sequence[str] | None = None,
    marked: Sequence[str] = (),
) -> Table:
    """One of the paper's tables beside ours.

    Args:
        number: of the paper's table, 1 to 7.
        ours: by row and column of that table in `pmsi.paper`, what we found; what is missing was not run.
        labels: names to show for rows; those not named are shown as printed.
        columns: which of the table's columns; None takes all.
        marked: rows that stand out.

    Raises:
        ValueError: a row or column that the paper's table does not have.
    """
    table = TABLES[number]
    columns = table.columns if columns is None else columns
    for what, names, known in (
        ("row", ours, table.rows),
        ("column", {*columns, *(name for row in ours.values() for name in row)}, table.columns),
    ):
        odd = [name for name in names if name not in known]
        if odd:
            raise ValueError(f"report: Table {_ROMAN[number]} has no {what} {odd[0]!r}; it has {', '.join(known)}")
    shown = {name: (labels or {}).get(name, row.label) for name, row in table.rows.items()}
    rows = tuple(
        (
            shown[name],
            *(_show_paper(table, name, column) for column in columns),
            *(_show_ours(table, ours, name, column) for column in columns),
        )
        for name in table.rows
    )
    head = (table.head, *(f"paper {name}" for name in columns), *(f"ours {name}" for name in columns))
    caption = f"Table {_ROMAN[number]}. {table.title}. Paper: {table.unit}."
    notes = (table.note,) if table.note else ()
    return Table(caption, head, rows, frozenset(shown[name] for name in marked), notes)


def list_verdicts(comparisons: Sequence[tuple[str, str, Comparison]]) -> Table:
    """Paired comparisons, each (first, second, what was found): the difference is first minus second."""
    rows = []
    for first, second, found in comparisons:
        low, high = found.interval
        test = "" if found.p_value is None else f"{found.p_value:.2g}" if found.p_value > 1e-99 else "< 1e-99"
        words = {"better": f"{first} is better", "worse": f"{first} is worse"}.get(found.verdict, found.verdict)
        rows.append((f"{first} vs {second}", f"{found.difference:+.1f}", f"{low:+.1f} to {high:+.1f}", test, words))
    shares = sorted({f"{100 * found.confidence:.3g} %" for _, _, found in comparisons})
    caption = "Differences on the same test images, in points, with bootstrap intervals over images and seeds."
    head = ("methods", "difference", f"interval ({', '.join(shares)})", "McNemar p", "verdict")
    return Table(caption, head, tuple(rows))


def list_hardest_classes(classes: Sequence[ClassAccuracy], *, count: int = 10) -> Table:
    """The classes with the lowest accuracies."""
    scored = [(one.accuracy, one) for one in classes if one.accuracy is not None]
    hardest = sorted(scored, key=lambda pair: pair[0])[:count]
    rows = tuple((one.name, str(one.images), f"{accuracy:.0f}") for accuracy, one in hardest)
    return Table(f"The {len(rows)} hardest of {len(classes)} classes.", ("class", "test images", "found, %"), rows)


def list_frequent_confusions(confusions: Sequence[Confusion]) -> Table:
    """Which classes are taken for which."""
    rows = tuple((one.truth, one.predicted, f"{one.images:.3g}", f"{one.share:.0f}") for one in confusions)
    head = ("class", "taken for", "test images", "of the class, %")
    return Table("The most frequent confusions; images are means over seeds.", head, rows)


def list_robustness(found: Mapping[str, Robustness]) -> Table:
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
    names = ("clean", *kinds.pop())
    rows = []
    for name in names:
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
        for slip in table.find_slips()
    )
    return Table(
        "Accuracy on corrupted test images, % (Mix), and its change in points.",
        head,
        tuple(rows),
        notes=(table.note, *slips),
    )


def _show_ours(table: PaperTable, ours: Mapping[str, Mapping[str, Summary]], row: str, column: str) -> str:
    """Our figure; where there is none and the paper has none either, there is nothing to run."""
    if column in ours.get(row, {}):
        return str(ours[row][column])
    return "-" if table.rows[row].values[table.columns.index(column)] is None else "not run"


def _show_paper(table: PaperTable, row: str, column: str) -> str:
    """A printed figure, with its change against the row's base where the paper prints one."""
    value = table.rows[row].values[table.columns.index(column)]
    if value is None:
        return "-"
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    return text if table.rows[row].base is None else f"{text} ({table.change(row, column):+.1f})"
