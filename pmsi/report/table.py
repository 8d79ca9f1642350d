"""A table as a value, rendered as HTML, rich or Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jinja2
import rich.table
from markupsafe import Markup


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        caption: what it shows, with units.
        head: names of the columns.
        rows: cells as they are shown; the first names the row.
        marked: names of rows that stand out.
        notes: sentences below it.
        words: cells are words rather than figures, and start at the left.

    >>> print(Table("Birds", ("name", "count"), (("wren", "3"),)).to_markdown())
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
        return render_part("table", self)

    def to_rich(self) -> rich.table.Table:
        """Make a table for a terminal."""
        table = rich.table.Table(title=self.caption, caption=" ".join(self.notes) or None)
        for place, name in enumerate(self.head):
            table.add_column(name, justify="right" if place and not self.words else "left")
        for row in self.rows:
            table.add_row(*row, style="bold" if row[0] in self.marked else None)
        return table

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; `from_dict` takes them back."""
        return {**asdict(self), "marked": sorted(self.marked)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Table:
        """A table from what `to_dict` wrote."""
        rows = tuple(tuple(row) for row in values["rows"])
        lists = {"head": tuple(values["head"]), "notes": tuple(values["notes"]), "marked": frozenset(values["marked"])}
        return cls(**{**values, **lists, "rows": rows})

    def to_markdown(self) -> str:
        """Make a table for a README; without caption and notes."""
        right = "---" if self.words else "---:"
        lines = [self.head, ("---", *[right] * (len(self.head) - 1)), *self.rows]
        rule = "|" + "|".join(lines[1]) + "|"
        return "\n".join(rule if line is lines[1] else f"| {' | '.join(line)} |" for line in lines) + "\n"


_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("pmsi.report"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
)


def render_part(macro: str, *arguments: Any) -> Markup:
    """Render one fragment of ``parts.html.j2``."""
    module: Any = _TEMPLATES.get_template("parts.html.j2").module
    return Markup(getattr(module, macro)(*arguments))


def render_page(**values: Any) -> str:
    """The whole page of ``page.html.j2``."""
    return _TEMPLATES.get_template("page.html.j2").render(**values)
