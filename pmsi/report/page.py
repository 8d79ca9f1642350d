"""The page and the tables that show `pmsi.experiments.study` beside the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import torch
from lightning_fabric import Fabric
from markupsafe import Markup
from torch import Tensor

from mosaicaug import Plan, apply
from pmsi.data.cub_annotations import read_annotations
from pmsi.data.dataset import Dataset
from pmsi.data.layouts import list_images
from pmsi.data.preprocess import center_window, preprocess
from pmsi.evaluation.accuracy import Evaluation
from pmsi.evaluation.gradcam import grad_cam
from pmsi.evaluation.pointing import find_peaks, score_points
from pmsi.evaluation.robustness import Robustness
from pmsi.evaluation.statistics import Summary, compare_paired, list_classes, list_confusions, summarise
from pmsi.experiments.folder import open_network, read_predictions
from pmsi.experiments.source import Source
from pmsi.experiments.tables import Name, name_run, table_recipes
from pmsi.paper import TABLES
from pmsi.recipe import Recipe
from pmsi.report.comparison import list_differences
from pmsi.report.figures import show_activations
from pmsi.report.sections import (
    compare_with_paper,
    list_frequent_confusions,
    list_hardest_classes,
    list_robustness,
    list_verdicts,
)
from pmsi.report.table import Table
from pmsi.runtime.files import write_json, write_text

_OURS = {"table3": "pmr", "table4": "rmg", "table5": "pmsi"}
_BASE = {"table3": "baseline", "table4": "none", "table5": "pmg", "candidates": "rmg", "modern": "rmg"}
_TITLES = {
    **{f"table{number}": f"Table {roman}" for number, roman in enumerate(("II", "III", "IV", "V", "VI", "VII"), 2)},
    "figure4": "Figure 4: Grad-CAM",
    "candidates": "Beyond the paper: changes of training, one at a time",
    "modern": "Beyond the paper: the recipe modern",
}
_PICTURES = 8
_POINTS = 512  # test images of the pointing game
_STAGES = ("stage N-2", "stage N-1", "stage N")


def list_parts(results: dict[str, Any], dataset: Dataset, base: Recipe, folder: Path) -> dict[str, list[Table]]:
    """The tables of each experiment: the paper's beside ours, and what can be said of differences."""
    parts = {name: _list_table(name, rows, dataset, base, folder) for name, rows in results["tables"].items()}
    if "robustness" in results:
        parts["table7"] = [list_robustness({row: _average(runs) for row, runs in results["robustness"].items()})]
    return parts


def write_page(
    results: dict[str, Any], dataset: Dataset, base: Recipe, folder: Path, source: Source, fabric: Fabric
) -> dict[str, list[Table]]:
    """``report.html`` of a folder: one file that needs no other; and its tables as values, in ``tables.json``.

    Args:
        results: what `reproduce` returned.
        source: of the data set, where annotations may lie.

    Returns:
        `list_parts`.
    """
    sections, found = [], list_parts(results, dataset, base, folder)
    for name, parts in found.items():
        shown = [part.to_html() for part in parts]
        if name == "figure4":
            shown = _draw_figure(results["seeds"][0], dataset, base, folder, source, fabric)
        sections.append({"name": name, "title": _TITLES[name], "parts": shown})
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pmsi.report"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    data = results["data"]
    summary = f"{data['name']}, {data['classes']} classes, {base.crop} px, {base.epochs} epochs"
    page = environment.get_template("reproduce.html.j2").render(
        results=results, sections=sections, summary=summary, differences=_list_differences(results).to_html()
    )
    write_text(folder / "report.html", page)
    write_json(folder / "tables.json", describe_tables(results, found))
    return found


def describe_tables(results: dict[str, Any], parts: Mapping[str, Sequence[Table]]) -> dict[str, Any]:
    """What a page shows, with its protocol, as plain values."""
    about = ("schema", "created", "data", "seeds", "weights", "recipe", "environment")
    runs = {
        run["folder"]: run["seconds"] for rows in results["tables"].values() for row in rows.values() for run in row
    }
    return {
        **{name: results[name] for name in about},
        "seconds": sum(runs.values()),
        "differences": _list_differences(results).to_dict(),
        "tables": {
            name: {"title": _TITLES[name], "parts": [part.to_dict() for part in found]}
            for name, found in parts.items()
            if found
        },
    }


def _list_table(name: Name, rows: Mapping[str, Any], dataset: Dataset, base: Recipe, folder: Path) -> list[Table]:
    if name in ("table7", "figure4"):
        return []
    if name in ("candidates", "modern"):
        return [_list_changes(name, rows, base), *_compare(name, rows, dataset, base, folder)]
    number, recipes = int(name[-1]), table_recipes(name, base)
    known = {row: runs for row, runs in rows.items() if row in TABLES[number].rows}
    columns = ["CUB"] if name == "table6" else None
    labels = {"pmsi": "RMG-PMSI (the paper's)", "rmg": "RMG (the paper's)"}
    labels |= {f"{key} pmsi": f"{key} + RMG-PMSI" for key in ("mobilenet_v2", "resnet18", "resnet34")}
    ours = {row: _summarise(name, recipes[row], runs) for row, runs in known.items()}
    marked = [_OURS[name]] if name in _OURS else []
    parts = [compare_with_paper(number, ours, labels=labels if number > 3 else None, columns=columns, marked=marked)]
    if name == "table6" and dataset.name != "cub":
        parts[0] = replace(parts[0], notes=(*parts[0].notes, f"Ours is {dataset.name}, the paper's column CUB."))
    for row in rows.keys() - known.keys():
        found = _summarise(name, recipes[row], rows[row])["Concat"]
        parts[0] = replace(parts[0], notes=(*parts[0].notes, f"{row.upper()}, which the paper does not have: {found}."))
    if name in _BASE:
        parts += _compare(name, rows, dataset, base, folder)
    return parts


def _list_changes(name: Name, rows: Mapping[str, Any], base: Recipe) -> Table:
    """What each row changes in the first one, and what comes of it."""
    recipes = table_recipes(name, base)
    first = recipes["rmg"].to_dict()
    shown = []
    for row, runs in rows.items():
        changes = {key: value for key, value in recipes[row].to_dict().items() if value != first[key]}
        found = _summarise(name, recipes[row], runs)
        words = ", ".join(f"{key} {value}" for key, value in changes.items()) or "-"
        shown.append((row, words, str(found["Concat"]), str(found["Mix"])))
    caption = "RMG-PMSI, and the same network trained otherwise. Accuracy, %."
    return Table(caption, ("row", "changes", "Concat", "Mix"), tuple(shown), marked=frozenset({"modern"}))


def _compare(name: Name, rows: Mapping[str, Any], dataset: Dataset, base: Recipe, folder: Path) -> list[Table]:
    """Every row against the table's base on the same test images, and where our network goes wrong."""
    first, recipes = _BASE[name], table_recipes(name, base)
    found = {row: read_predictions(folder, recipes[row], runs) for row, runs in rows.items()}
    labels, reference = found[first]
    share = 1 - 0.05 / (len(found) - 1)  # of one interval, so that all hold in 95 of 100 studies
    comparisons = [
        (row, first, compare_paired(labels, predicted, reference, confidence=share))
        for row, (_, predicted) in found.items()
        if row != first
    ]
    parts = [list_verdicts(comparisons)]
    if name == "table4":
        predicted = found[_OURS[name]][1]
        parts.append(list_hardest_classes(list_classes(labels, predicted, dataset.classes)))
        parts.append(list_frequent_confusions(list_confusions(labels, predicted, dataset.classes)))
    return parts


def _summarise(name: Name, recipe: Recipe, runs: Sequence[Mapping[str, Any]]) -> dict[str, Summary]:
    """Our figures by the columns of the paper's table; Mix only where stages are trained."""
    if name == "table6":
        return {"CUB": summarise([run["mix"] for run in runs])}
    found = {"Concat": [run["concat"] for run in runs]}
    if recipe.progressive:
        found["Mix"] = [run["mix"] for run in runs]
    if name == "table2":
        found |= {f"S{6 - k}": [run["stages"][-k] for run in runs] for k in range(1, recipe.stages + 1)}
    return {column: summarise(values) for column, values in found.items()}


def _average(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> Robustness:
    """Accuracies of several seeds as if of one."""

    def mean(kind: str) -> Evaluation:
        concat, mix = (sum(run[kind][what] for run in runs) / len(runs) for what in ("concat", "mix"))
        nobody = torch.empty(0, dtype=torch.int64)
        return Evaluation(concat, mix, (), nobody, nobody)

    return Robustness(mean("clean"), {kind: mean(kind) for kind in runs[0] if kind != "clean"})


def _draw_figure(
    seed: int, dataset: Dataset, base: Recipe, folder: Path, source: Source, fabric: Fabric
) -> list[Markup]:
    """Activation maps on test images of different classes, and where their peaks lie if the birds' boxes are known."""
    recipe = table_recipes("figure4", base)["pmsi"]
    network = open_network(folder / name_run(recipe, seed), recipe, len(dataset.classes), fabric)
    labels = dataset.test.labels
    first = torch.stack([(labels == label).nonzero()[0, 0] for label in range(_PICTURES) if (labels == label).any()])
    pictures, inputs = _crop(dataset, recipe, first, fabric)
    shown = [show_activations(pictures, [one.cpu() for one in grad_cam(network, inputs)], _STAGES[-recipe.stages :])]
    if dataset.name == "cub" and source.root is not None and not dataset.skipped:
        root = source.root.expanduser()
        files = [path for path, _ in list_images("cub", root, source.hold_out).test][:_POINTS]
        annotations = read_annotations(root, files, resize=recipe.resize, crop=recipe.test_side)
        if annotations.boxes is not None or annotations.parts is not None:
            peaks = [
                find_peaks(
                    grad_cam(network, _crop(dataset, recipe, rows, fabric)[1])[-1].cpu(), (recipe.test_side,) * 2
                )
                for rows in torch.arange(len(files)).chunk(-(-len(files) // 32))
            ]
            centres = torch.full((len(files), 2), recipe.test_side / 2)
            rows = [
                (name, *("-" if hit is None else f"{hit:.1f}" for hit in score_points(points, annotations)))
                for name, points in (("peak of stage N", torch.cat(peaks)), ("centre of the image", centres))
            ]
            caption = f"Pointing game on {len(files)} test images, % that hit."
            shown.append(Table(caption, ("where", "bird's box", "within 15 px of a part"), tuple(rows)).to_html())
    return shown


def _crop(dataset: Dataset, recipe: Recipe, rows: Tensor, fabric: Fabric) -> tuple[Tensor, Tensor]:
    """Central crops of some test images, as uint8 and as network inputs."""
    stored, window = dataset.test.take(rows), center_window(recipe, len(rows))
    raw = Plan.identity(len(rows), (recipe.test_side,) * 2)
    inputs = preprocess(stored, raw, torch.arange(len(rows)), window)
    return apply(stored, raw, window=window), fabric.to_device(inputs)


def _list_differences(results: dict[str, Any]) -> Table:
    runs = [{"seed": seed} for seed in results["seeds"]]
    rows = tuple(list_differences({**results, "rows": [{"runs": runs}]}))
    return Table("", ("what", "paper", "here"), rows, words=True)
