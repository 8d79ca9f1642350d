"""Picture of the time over the number of tiles: docs/images/scaling.png."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.results import Row
from bench.throughput.cases import PERS, centre
from bench.throughput.rows import has_times, index_rows
from bench.throughput.tables import Rows

COLOURS = {"float32": "C0", "uint8": "C1"}


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the time of a call into a ready buffer over r and n, beside that of the copy."""
    rows = index_rows(results["rows"])
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(8, 3), layout="constrained", dpi=120)
        left, right = figure.subplots(1, 2, sharey=True)
        _draw_panel(left, rows, "rmg", "r", range(6))
        _draw_panel(right, rows, "jigsaw", "n", range(1, 17))
        left.set_ylim(bottom=0)
        left.set_ylabel("ms for 32 x 448 px")
        figure.legend(
            *right.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, fontsize=7
        )
        figure.savefig(path, metadata={"Software": None})


def _draw_panel(axes: Axes, rows: Rows, name: str, letter: str, levels: range) -> None:
    for dtype, per in itertools.product(COLOURS, PERS):
        points = [(level, rows.get((centre(name, level=level, dtype=dtype, per=per), "ours_out"))) for level in levels]
        _draw_line(axes, points, color=COLOURS[dtype], ls="-" if per == "sample" else "--", label=f"{dtype}, per {per}")
    for dtype, colour in COLOURS.items():
        copies = [(level, rows.get((centre(name, level=level, dtype=dtype), "copy"))) for level in levels]
        _draw_line(axes, copies, color=colour, ls=":", label=f"{dtype}, copy")
    axes.set_title({"rmg": "RMG", "jigsaw": "jigsaw"}[name])
    axes.set_xlabel(letter)


def _draw_line(axes: Axes, points: list[tuple[int, Row | None]], **style: Any) -> None:
    known = [(level, row["median_ms"]) for level, row in points if row and has_times(row)]
    axes.plot([level for level, _ in known], [time for _, time in known], marker=".", **style)
