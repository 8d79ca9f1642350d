"""Results of the studies "mobile": accuracy of networks by what they cost, beside plain MobileNetV2 and full PMSI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pmsi.evaluation.statistics import Comparison, compare_paired, measure_interval, summarise
from pmsi.experiments.results import Study
from pmsi.experiments.tables import COSTED, Row, table_rows
from pmsi.recipe import Recipe
from pmsi.report.table import Table

PLAIN, FULL = "baseline", "full"  # rows that the others are measured by: their cost, and their accuracy
MOST_MACS, MOST_MEGABYTES = 1.15, 4.0  # of a network for a phone: times those of plain MobileNetV2, and of int8 weights
# Words below a plot.
BUDGET = (
    "Mix (Concat of plain MobileNetV2), with 95 % bootstrap intervals over test images and seeds. Left of the dotted "
    f"line are networks of at most {MOST_MACS:g} times its multiply-accumulates; those of more than "
    f"{MOST_MEGABYTES:g} MB have hollow marks."
)


class CostPoint(NamedTuple):
    """Cost of a network, and its accuracy: mean over seeds and its 95 % interval, percent.

    Args:
        row: its name.
        ratio: its multiply-accumulates as a multiple of plain MobileNetV2's with its classifier.
        megabytes: of int8 weights, of 10^6 bytes.
        accuracy, low, high: of Mix, or of Concat where the stages are not trained.
    """

    row: str
    ratio: float
    megabytes: float
    accuracy: float
    low: float
    high: float

    @property
    def fits(self) -> bool:
        """Test for a network that is cheap enough for a phone."""
        return self.ratio <= MOST_MACS and self.megabytes <= MOST_MEGABYTES


def list_cost_points(study: Study, name: str) -> list[CostPoint]:
    """Cost and accuracy of every row with finished runs; none where the table has no costs."""
    if name not in COSTED:
        return []
    costs, points = study.results["costs"][name], []
    for row, recipe in _list_recipes(study, name).items():
        runs = _list_runs(study, name, row)
        joined = study.join_predictions(recipe, runs)
        if joined is not None:
            cost, output = costs[row], "mix" if recipe.progressive else "concat"
            mean = summarise([run[output] for run in runs]).mean
            ratio = cost["macs"] / costs[PLAIN]["macs"]
            points.append(CostPoint(row, ratio, cost["int8_bytes"] / 1e6, mean, *measure_interval(*joined)))
    return points


def costs_table(study: Study, name: str) -> Table:
    """Cost of each network, accuracies, and the paired difference of each output from full PMSI's Mix."""
    # 1. Answers of both outputs, and how many of them are compared with full PMSI's.
    costs, recipes = study.results["costs"][name], _list_recipes(study, name)
    runs = {row: found for row in recipes if (found := _list_runs(study, name, row))}
    outputs = {
        (row, output): study.join_predictions(recipes[row], found, output=output)
        for row, found in runs.items()
        for output in ("concat", "mix")
        if output == "concat" or recipes[row].progressive
    }
    full = outputs.pop((FULL, "mix"), None)
    compared = {key: joined for key, joined in outputs.items() if full is not None and joined is not None}
    share = 1 - 0.05 / max(1, len(compared))
    tests = {key: compare_paired(*joined, full[1], confidence=share) for key, joined in compared.items() if full}

    # 2. A row for each network.
    cells = []
    for row, found in runs.items():
        cost = costs[row]
        shown = [f"{cost['macs'] / 1e6:.0f}", f"{cost['macs'] / costs[PLAIN]['macs']:.2f}"]
        shown.append(f"{cost['int8_bytes'] / 1e6:.2f}")
        for output in ("concat", "mix"):
            tested = output == "concat" or recipes[row].progressive
            shown.append(str(summarise([run[output] for run in found])) if tested else "-")
            shown.append(_show_test(tests[row, output]) if (row, output) in tests else "-")
        cells.append((row, *shown))

    # 3. What the columns are.
    caption = (
        f"Multiply-accumulates for one image of {study.base.test_side} px, and as a multiple of plain MobileNetV2's; "
        "int8 weights; accuracy, %; and differences from full PMSI's Mix on the same test images, in points, with "
        f"bootstrap intervals over images and seeds ({100 * share:.4g} %)."
    )
    fitting = [point.row for point in list_cost_points(study, name) if point.fits and point.row != PLAIN]
    note = f"Within {MOST_MACS:g} times plain MobileNetV2's multiply-accumulates and {MOST_MEGABYTES:g} MB: "
    head = ("network", "MACs, M", "of plain", "int8, MB", "Concat", "minus full", "Mix", "minus full")
    return Table(caption, head, tuple(cells), frozenset(fitting), (note + ("; ".join(fitting) or "none") + ".",))


def changes_table(study: Study, name: str) -> Table:
    """Settings that each network changes in the published heads."""
    recipes = _list_recipes(study, name)
    full, rows = recipes[FULL].to_dict(), []
    for row, recipe in recipes.items():
        if row not in (PLAIN, FULL):
            changes = {key: value for key, value in recipe.to_dict().items() if value != full[key]}
            rows.append((row, ", ".join(f"{key} {value}" for key, value in changes.items())))
    return Table("Settings that each network changes in full PMSI.", ("network", "changes"), tuple(rows), words=True)


def _show_test(test: Comparison) -> str:
    low, high = test.interval
    return f"{test.difference:+.1f} ({low:+.1f} to {high:+.1f}), {test.verdict}"


def _list_recipes(study: Study, name: Any) -> Mapping[str, Recipe]:
    return {row: one.recipe for row, one in table_rows(name, Row(study.base), study.grid).items()}


def _list_runs(study: Study, name: str, row: str) -> Sequence[Mapping[str, Any]]:
    runs: Sequence[Mapping[str, Any]] = study.results["tables"][name].get(row, ())
    return runs
