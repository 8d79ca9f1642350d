"""The paper's tables run again, as Markdown from what `pmsi reproduce` left in ``tables.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.results import FOLDER
from pmsi.recipe import RECIPES
from pmsi.report.figures import save_costs, save_regimes
from pmsi.report.mobile import BUDGET, CostPoint
from pmsi.report.regimes import INTERVALS, Measured
from pmsi.report.table import Table


def render(file: str, *names: str, first_only: bool = False, folder: Path = FOLDER) -> str:
    """Tables of a file of results, and the line that says what was run; all of them if none is named.

    "Not run yet." where there are none.

    Args:
        file: in bench/results.
        names: of tables, as `pmsi reproduce` takes them.
        first_only: leave out comparisons of a table's rows.
    """
    results = _read(folder / file)
    if results is None or not {*names} <= results["tables"].keys():
        return "Not run yet.\n"
    tables = results["tables"]
    texts = []
    for name in names or tables:
        parts = [Table.from_dict(part) for part in tables[name]["parts"]]
        texts += [text for part in (parts[:1] if first_only else parts) for text in _show(part)]
    return "\n\n".join([*texts, _describe(results)]) + "\n"


def render_regimes(file: str, picture: str, folder: Path = FOLDER) -> str:
    """The table of "regimes" below its picture, which `draw_regimes` makes of the same file."""
    text = render(file, "regimes", folder=folder)
    if not _read_points(folder / file, "regimes"):
        return text
    return f"![Accuracy over epochs, by number of training images a class]({picture})\n\n*{INTERVALS}*\n\n{text}"


def draw_regimes(file: str, picture: Path, folder: Path = FOLDER) -> bool:
    """Draw the picture of "regimes" from a file of results; False where there is nothing to draw."""
    points = [Measured(**point) for point in _read_points(folder / file, "regimes")]
    if points:
        save_regimes(points, picture)
    return bool(points)


def render_costs(file: str, picture: str, name: str = "mobile", folder: Path = FOLDER) -> str:
    """The tables of a study of costs below their picture, which `draw_costs` makes of the same file."""
    text = render(file, name, folder=folder)
    if not _read_points(folder / file, name):
        return text
    return f"![Accuracy over multiply-accumulates]({picture})\n\n*{BUDGET}*\n\n{text}"


def draw_costs(file: str, picture: Path, name: str = "mobile", folder: Path = FOLDER) -> bool:
    """Draw the picture of a study of costs from a file of results; False where there is nothing to draw."""
    points = [CostPoint(**point) for point in _read_points(folder / file, name)]
    if points:
        save_costs(points, picture)
    return bool(points)


def render_differences(file: str, folder: Path = FOLDER) -> str:
    """In what the protocol of a file of results is not the paper's."""
    results = _read(folder / file)
    if results is None:
        return "Not run yet.\n"
    return Table.from_dict(results["differences"]).to_markdown()


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results


def _read_points(path: Path, name: str) -> list[dict[str, Any]]:
    """Values of the picture of a table; none where it was not run."""
    results = _read(path) or {"tables": {}}
    return list(results["tables"].get(name, {}).get("points", ()))


def _show(part: Table) -> Iterator[str]:
    yield f"*{part.caption}*"
    yield part.to_markdown().rstrip()
    if part.notes:
        yield " ".join(part.notes)


def _describe(results: dict[str, Any]) -> str:
    recipe, data, environment = results["recipe"], results["data"], results["environment"]
    name = recipe["name"].removesuffix("-changed")
    named = RECIPES[name].to_dict() if name in RECIPES else {}
    changes = [f"{key} {recipe[key]}" for key, value in named.items() if recipe.get(key, value) != value]
    settings = ", ".join([f"Recipe `{name}`" + (" with" if changes else ""), *changes]).replace("with,", "with")
    weights = "random weights" if results["weights"] == "none" else "a pretrained backbone"
    seeds = ", ".join(map(str, results["seeds"]))
    writers = ", ".join(results.get("written_by", [])) or f"commit {environment['commit']}"
    return (
        f"{data['protocol']} {settings}; {weights}, seed {seeds}, last epoch; {environment['device']}, "
        f"{results['seconds'] / 60:.0f} minutes of training and tests, {writers}."
    )
