"""Tables of a study: the paper's beside ours, paired tests of their differences, and where a network goes wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from pmsi.evaluation.accuracy import Evaluation
from pmsi.evaluation.robustness import Robustness
from pmsi.evaluation.statistics import ClassAccuracy, Summary, compare_paired, list_classes, list_confusions, summarise
from pmsi.experiments.results import Rows, Study, list_runs
from pmsi.experiments.tables import COSTED, Name, Row, table_rows
from pmsi.paper import TABLES
from pmsi.recipe import Recipe
from pmsi.report.differences import differences_table
from pmsi.report.mobile import changes_table, costs_table, list_cost_points
from pmsi.report.regimes import measure_points, regimes_table
from pmsi.report.sections import (
    PairedTest,
    accuracy_table,
    compare_with_paper,
    comparison_table,
    confusions_table,
    hardest_classes_table,
    pointing_table,
    robustness_table,
    seeds_table,
)
from pmsi.report.table import Table
from pmsi.training.phases import AUGMENTATIONS

METHOD_LABELS: Mapping[str, str] = {method: entry.label for method, entry in AUGMENTATIONS.items()}
# Names of rows in place of the printed ones, by table.
LABELS: Mapping[str, Mapping[str, str]] = {
    "table4": METHOD_LABELS,
    "table5": {"pmsi": "RMG-PMSI (the paper's)", "cnl": "CNL (not in the paper)"},
    "table6": {f"{key} pmsi": f"{key} + RMG-PMSI" for key in ("mobilenet_v2", "resnet18", "resnet34")},
}
# Rows that the others are tested against, by table.
BASES: Mapping[str, tuple[str, ...]] = {
    "table3": ("baseline",),
    "table4": ("none",),
    "table5": ("pmg",),
    "candidates": ("rmg", "none"),
    "modern": ("rmg", "none"),
}
TITLES = {
    **{f"table{number}": f"Table {roman}" for number, roman in enumerate(("II", "III", "IV", "V", "VI", "VII"), 2)},
    "figure4": "Figure 4: Grad-CAM",
    "candidates": "Beyond the paper: changes of training, one at a time",
    "modern": "Beyond the paper: the recipe modern",
    "mobile": "Networks for a phone",
    "mobile-final": "The recipe mobile",
    "regimes": "Where a mosaic pays off",
    "run": "Accuracy",
}
_OURS = {"table3": "pmr", "table4": "rmg", "table5": "pmsi"}


def list_tables(study: Study) -> dict[str, list[Table]]:
    """Tables of each experiment: the paper's beside ours, paired tests, hardest classes and confusions."""
    return {name: _list_tables(study, name) for name in study.results["tables"]}


def describe_tables(study: Study) -> dict[str, Any]:
    """Tables of a study with their protocol as plain values, for ``tables.json``."""
    results = study.results
    about = ("schema", "created", "seeds", "weights", "recipe", "environment")
    return {
        **{name: results[name] for name in about},
        "written_by": results.get("written_by", []),
        "data": {name: value for name, value in results["data"].items() if name != "class_names"},
        "seconds": sum(run["seconds"] for run in list_runs(results["tables"])),
        "differences": differences_table(results).to_dict(),
        "tables": {
            name: {"title": TITLES[name], "parts": [table.to_dict() for table in tables], **_list_drawn(study, name)}
            for name, tables in list_tables(study).items()
            if tables
        },
    }


def _list_drawn(study: Study, name: str) -> dict[str, Any]:
    """Values of a table's picture, where it has one that is drawn from them alone."""
    points = measure_points(study) if name == "regimes" else list_cost_points(study, name)
    return {"points": [point._asdict() for point in points]} if points else {}


def row_recipes(study: Study, name: str) -> Mapping[str, Recipe]:
    """Recipes of a table's rows; the one row of "run" has the study's own."""
    if name == "run":
        return dict.fromkeys(study.results["tables"][name], study.base)
    rows = table_rows(cast(Name, name), Row(study.base), study.grid)
    return {label: row.recipe for label, row in rows.items()}


def list_all_classes(study: Study, rows: Rows, recipes: Mapping[str, Recipe]) -> dict[str, list[ClassAccuracy]]:
    """Accuracy of every class for every row whose predictions are there."""
    joined = {row: study.join_predictions(recipes[row], runs) for row, runs in rows.items()}
    return {row: list_classes(*one, study.classes) for row, one in joined.items() if one is not None}


def _list_tables(study: Study, name: str) -> list[Table]:
    recipes = row_recipes(study, name)
    rows: Rows = {row: runs for row, runs in study.results["tables"][name].items() if runs}
    if name == "figure4":
        return [] if study.pointing is None else [pointing_table(study.pointing)]
    if name == "table7":
        measured = study.results.get("robustness", {})
        return [robustness_table({row: _average(runs) for row, runs in measured.items()})] if measured else []
    if name == "regimes":
        return [regimes_table(study)] if rows else []
    if name in COSTED:
        return [costs_table(study, name), changes_table(study, name)] if rows else []
    tests = _compare_rows(study, name, rows, recipes)
    if name == "run":
        (run,) = (runs[0] for runs in rows.values())
        images = study.results["data"]["test_images"]
        measured = study.results.get("robustness", {})
        more = [robustness_table({"this network": _average(runs)}) for runs in measured.values()]
        return [accuracy_table(run, progressive=study.base.progressive, test_images=images), *tests, *more]
    ours = {row: _summarise(name, recipes[row], runs) for row, runs in rows.items()}
    if name in ("candidates", "modern"):
        return [_changes_table(recipes, ours), *tests] if ours else []
    marked = [_OURS[name]] if name in _OURS else []
    columns = ["CUB"] if name == "table6" else None
    number = _number(name)
    assert number is not None
    table = compare_with_paper(number, ours, labels=LABELS.get(name), columns=columns, marked=marked)
    if name == "table6" and study.results["data"]["name"] != "cub":
        note = f"Ours is {study.results['data']['name']}, the paper's column CUB."
        table = replace(table, notes=(*table.notes, note))
    return [table, *tests]


def _compare_rows(study: Study, name: str, rows: Rows, recipes: Mapping[str, Recipe]) -> list[Table]:
    """Compare every row with each of the table's bases, and say where one network goes wrong."""
    joined = {row: study.join_predictions(recipes[row], runs) for row, runs in rows.items()}
    found = {row: one for row, one in joined.items() if one is not None}
    tables = [table for base in BASES.get(name, ()) for table in _compare_with(base, name, rows, found)]
    detailed = "rmg" if name == "table4" else next(iter(rows), "") if name == "run" else ""
    if detailed in found:
        labels, predicted = found[detailed]
        tables.append(hardest_classes_table(list_classes(labels, predicted, study.classes)))
        tables.append(confusions_table(list_confusions(labels, predicted, study.classes)))
    return tables


def _compare_with(base: str, name: str, rows: Rows, found: Mapping[str, tuple[Tensor, Tensor]]) -> list[Table]:
    """Compare every row but ``base`` with it on the same test images, over all seeds and in each alone.

    Args:
        found: labels and predictions of rows that have them.
    """
    if base not in found or len(found) < 2:
        return []
    labels, reference = found[base]
    share = 1 - 0.05 / (len(found) - 1)  # of one interval, so that all of a table hold in 95 of 100 studies
    tests, alone = [], defaultdict[int, list[PairedTest]](list)
    for row, (_, predicted) in found.items():
        if row == base:
            continue
        whole = compare_paired(labels, predicted, reference, confidence=share)
        tests.append(PairedTest(row, base, whole, _paper_difference(name, row, base)))
        for seed, first, second in _pair_seeds(rows[row], predicted, rows[base], reference):
            one = compare_paired(labels, first, second, confidence=share)
            alone[seed].append(PairedTest(row, base, one))
    return [comparison_table(tests), *([seeds_table(dict(sorted(alone.items())))] if len(alone) > 1 else [])]


def _pair_seeds(
    first: Sequence[Mapping[str, Any]], predicted: Tensor, second: Sequence[Mapping[str, Any]], reference: Tensor
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Each seed that two rows share, with the predictions ``[N]`` of both."""
    others = {run["seed"]: answers for run, answers in zip(second, reference, strict=True)}
    for run, answers in zip(first, predicted, strict=True):
        if run["seed"] in others:
            yield run["seed"], answers, others[run["seed"]]


def _changes_table(recipes: Mapping[str, Recipe], ours: Mapping[str, Mapping[str, Summary]]) -> Table:
    """Settings that each row changes in the first one, and its accuracies."""
    first = recipes["rmg"].to_dict()
    cells = []
    for row, found in ours.items():
        changes = {key: value for key, value in recipes[row].to_dict().items() if value != first[key]}
        words = ", ".join(f"{key} {value}" for key, value in changes.items()) or "-"
        cells.append((row, words, str(found["Concat"]), str(found["Mix"])))
    caption = "RMG-PMSI, and the same network trained otherwise. Accuracy, %."
    return Table(caption, ("row", "changes", "Concat", "Mix"), tuple(cells), marked=frozenset({"modern"}))


def _summarise(name: str, recipe: Recipe, runs: Sequence[Mapping[str, Any]]) -> dict[str, Summary]:
    """Our figures by the columns of the paper's table; Mix only where stages are trained."""
    if name == "table6":
        return {"CUB": summarise([run["mix"] for run in runs])}
    found = {"Concat": [run["concat"] for run in runs]}
    if recipe.progressive:
        found["Mix"] = [run["mix"] for run in runs]
    if name == "table2":
        found |= {f"S{6 - k}": [run["stages"][-k] for run in runs] for k in range(1, recipe.stages + 1)}
    return {column: summarise(values) for column, values in found.items()}


def _number(name: str) -> int | None:
    """Number of the paper's table; None for what is not the paper's."""
    return int(name.removeprefix("table")) if name.startswith("table") else None


def _paper_difference(name: str, row: str, base: str) -> float | None:
    """Difference of the paper's accuracies, Mix where it is printed; None for rows that it does not have."""
    number = _number(name)
    if number is None or not {row, base} <= TABLES[number].rows.keys():
        return None
    first, second = (
        next(value for value in reversed(TABLES[number].rows[one].values) if value is not None) for one in (row, base)
    )
    return first - second


def _average(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> Robustness:
    """Accuracies of several seeds as if of one."""

    def mean(kind: str) -> Evaluation:
        concat, mix = (sum(run[kind][which] for run in runs) / len(runs) for which in ("concat", "mix"))
        nobody = torch.empty(0, dtype=torch.int64)
        return Evaluation(concat, mix, (), nobody, nobody)

    return Robustness(mean("clean"), {kind: mean(kind) for kind in runs[0] if kind != "clean"})
