"""Tables and pictures that a page, a terminal or a README can show: each is a value first, then rendered."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jinja2
import rich.table
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from pmsi.cam import overlay
from pmsi.paper import TABLES, PaperTable
from pmsi.robustness import Robustness
from pmsi.statistics import ClassAccuracy, Comparison, Confusion, Summary

CORRUPTION_LABELS = {
    "clean": "clean",
    "color_jitter": "colour jitter",
    "gaussian_noise": "Gaussian noise, clipped",
    "published_noise": "Gaussian noise that wraps",
}
_ROMAN = ("", "I", "II", "III", "IV", "V", "VI", "VII")
_SMALLEST_SIDE = 96  # px, below which pictures are enlarged


@dataclass(frozen=True)
class Part:
    """A table.

    Args:
        caption: what it shows, with units.
        head: names of the columns.
        rows: cells as they are shown; the first names the row.
        marked: names of rows that stand out.
        notes: sentences below it.
        words: cells are words rather than figures, and start at the left.

    >>> print(Part("Birds", ("name", "count"), (("wren", "3"),)).to_markdown())
    | name | count |
    |---|---:|
    | wren | 3 |
    <BLANKLINE>
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    words: bool = False

    def to_html(self) -> Markup:
        """A fragment for a page with the report's style sheet."""
        return _render("table", self)

    def to_rich(self) -> rich.table.Table:
        """For a terminal."""
        table = rich.table.Table(title=self.caption, caption=" ".join(self.notes) or None)
        for place, name in enumerate(self.head):
            table.add_column(name, justify="right" if place and not self.words else "left")
        for row in self.rows:
            table.add_row(*row, style="bold" if row[0] in self.marked else None)
        return table

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; ``Part.from_dict`` takes them back."""
        return {**asdict(self), "marked": sorted(self.marked)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Part:
        """What `to_dict` wrote."""
        rows = tuple(tuple(row) for row in values["rows"])
        lists = {"head": tuple(values["head"]), "notes": tuple(values["notes"]), "marked": frozenset(values["marked"])}
        return cls(**{**values, **lists, "rows": rows})

    def to_markdown(self) -> str:
        """For a README; without caption and notes."""
        right = "---" if self.words else "---:"
        lines = [self.head, ("---", *[right] * (len(self.head) - 1)), *self.rows]
        rule = "|" + "|".join(lines[1]) + "|"
        return "\n".join(rule if line is lines[1] else f"| {' | '.join(line)} |" for line in lines) + "\n"


def compare_with_paper(
    number: int,
    ours: Mapping[str, Mapping[str, Summary]],
    *,
    labels: Mapping[str, str] | None = None,
    columns: Sequence[str] | None = None,
    marked: Sequence[str] = (),
) -> Part:
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
    return Part(caption, head, rows, frozenset(shown[name] for name in marked), notes)


def list_verdicts(comparisons: Sequence[tuple[str, str, Comparison]]) -> Part:
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
    return Part(caption, head, tuple(rows))


def list_hardest_classes(classes: Sequence[ClassAccuracy], *, count: int = 10) -> Part:
    """The classes with the lowest accuracies."""
    scored = [(one.accuracy, one) for one in classes if one.accuracy is not None]
    hardest = sorted(scored, key=lambda pair: pair[0])[:count]
    rows = tuple((one.name, str(one.images), f"{accuracy:.0f}") for accuracy, one in hardest)
    return Part(f"The {len(rows)} hardest of {len(classes)} classes.", ("class", "test images", "found, %"), rows)


def list_frequent_confusions(confusions: Sequence[Confusion]) -> Part:
    """Which classes are taken for which."""
    rows = tuple((one.truth, one.predicted, f"{one.images:.3g}", f"{one.share:.0f}") for one in confusions)
    head = ("class", "taken for", "test images", "of the class, %")
    return Part("The most frequent confusions; images are means over seeds.", head, rows)


def list_robustness(found: Mapping[str, Robustness]) -> Part:
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
    return Part(
        "Accuracy on corrupted test images, % (Mix), and its change in points.",
        head,
        tuple(rows),
        notes=(table.note, *slips),
    )


def show_activations(images: Tensor, maps: Sequence[Tensor], names: Sequence[str]) -> Markup:
    """Images, and below them the maps of each stage as overlays (Fig. 4).

    Args:
        images: uint8 ``[B, 3, H, W]``, as the network saw them.
        maps: of each stage ``[B, h, w]`` in 0..1, shallow to deep.
        names: of the stages.
    """
    pictures = [("test images", images), *((name, overlay(images, one)) for name, one in zip(names, maps, strict=True))]
    return Markup("").join(_render("figure", name, *encode(picture)) for name, picture in pictures)


def encode(images: Tensor) -> tuple[str, int, int]:
    """Images uint8 ``[K, 3, H, W]`` side by side: a PNG as a data URI, and the width and height to show it at, px."""
    side = images.permute(2, 0, 3, 1).flatten(1, 2).contiguous()  # [H, K*W, 3]
    file = io.BytesIO()
    Image.fromarray(side.numpy()).save(file, format="PNG", optimize=True)
    zoom = max(1, round(_SMALLEST_SIDE / images.shape[2]))
    uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return uri, side.shape[1] * zoom, side.shape[0] * zoom


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


def _render(macro: str, *arguments: Any) -> Markup:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pmsi"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    module: Any = environment.get_template("parts.html.j2").module
    return Markup(getattr(module, macro)(*arguments))
