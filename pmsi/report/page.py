"""The page of a study, a run or a test: one self-contained HTML file, made from values alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pmsi.evaluation.statistics import summarise
from pmsi.experiments.results import Rows, Study, list_places
from pmsi.experiments.tables import Grid
from pmsi.report.differences import differences_table, list_choices
from pmsi.report.figures import show_activations, show_costs, show_curves, show_regimes, show_strips
from pmsi.report.mistakes import show_answers
from pmsi.report.mobile import BUDGET, list_cost_points
from pmsi.report.regimes import INTERVALS, measure_points
from pmsi.report.sections import classes_table, describe_order, runs_table, standard_error
from pmsi.report.study_tables import BASES, LABELS, METHOD_LABELS, TITLES, list_all_classes, list_tables, row_recipes
from pmsi.report.table import Table, render_page, render_part
from pmsi.runtime.files import write_text


@dataclass(frozen=True)
class Section:
    """Part of a page under its own heading."""

    name: str
    title: str
    parts: Sequence[Markup]


def write_page(study: Study, path: Path) -> None:
    """Write the page of ``study``: one file that needs no other.

    Args:
        study: results of a study, of one run (table "run") or of a test.
        path: of the page.

    Raises:
        OSError: it could not be written; what was there stays.
    """
    results = study.results
    sections = [_make_section(study, name, tables) for name, tables in list_tables(study).items()]
    if study.previews:
        sections.append(Section("inputs", "What the network saw", list(_show_previews(study))))
    different = [differences_table(results).to_html()]
    if "table4" in results["tables"]:
        different.append(render_part("numbered", list_choices(results["recipe"])))
    sections += [
        Section("protocol", "Where the protocol is not the paper's", different),
        Section("runs", "Runs and configuration", list(_show_details(study))),
    ]
    data, environment, recipe = results["data"], results["environment"], results["recipe"]
    varied = [*results["tables"]] == ["regimes"]
    spread = "means" if varied else "mean \u00b1 standard deviation"
    several = f", {spread} over seeds" if len(results["seeds"]) > 1 else ""
    length = _describe_grid(study.grid) if varied else f"{recipe['epochs']} epochs"
    page = render_page(
        title=_choose_title(study),
        source="Wu et al. 2021, arXiv 2112.04223",
        summary=f"{data['name']}, {data['classes']} classes, {recipe['crop']} px, {length}",
        lead=f'{data["protocol"]} Recipe "{recipe["name"]}". Figures are of the last epoch{several}.',
        sections=sections,
        footer=f"{environment['device']}; torch {environment['torch']}, mosaicaug {environment['mosaicaug']}, "
        f"commit {environment['commit']}; {_name_writers(results)}{results['created']}.",
    )
    write_text(path, page)


def _name_writers(results: Mapping[str, Any]) -> str:
    """Name the versions that trained the runs, where they are others than the one that wrote the page."""
    writers = [one for one in results.get("written_by", []) if results["environment"]["commit"] not in one]
    return f"trained by {', '.join(writers)}; " if writers else ""


def _choose_title(study: Study) -> str:
    names = [*study.results["tables"]]
    if len(names) > 1:
        return "The experiments of RMG-PMSI, run again"
    titles = {"table4": "Augmentations under progressive training", "run": f"One network, {study.base.network}"}
    return titles.get(names[0], TITLES[names[0]])


def _describe_grid(grid: Grid) -> str:
    """Least and greatest numbers of images and epochs of "regimes"."""
    images, epochs = (
        " to ".join(map(str, sorted({min(values), max(values)}))) for values in (grid.per_class, grid.epochs)
    )
    return f"{images} training images a class, {epochs} epochs"


def _make_section(study: Study, name: str, tables: Sequence[Table]) -> Section:
    """The tables, what can be said about their order, pictures, learning curves, and all classes."""
    rows: Rows = {row: runs for row, runs in study.results["tables"][name].items() if runs}
    labels = LABELS.get(name, {})
    parts = [table.to_html() for table in tables]
    if not rows:
        parts.append(render_part("sentence", "No run is finished yet."))
    elif name == "table4":
        parts[1:1] = _describe_comparison(study, rows)
    elif name == "figure4" and study.activations is not None:
        shown = study.activations
        parts.insert(0, show_activations(shown.images, shown.maps, shown.names))
    elif name == "regimes" and (points := measure_points(study)):
        parts[:0] = [show_regimes(points), render_part("sentence", INTERVALS)]
    elif costs := list_cost_points(study, name):
        parts[:0] = [show_costs(costs), render_part("sentence", BUDGET)]
    if name not in ("table7", "figure4", "regimes"):  # their runs are other tables', or too many
        curves = show_curves({labels.get(row, row): runs for row, runs in rows.items()})
        parts += [render_part("heading", "Learning curves"), curves] if curves else []
    if name == "run":
        parts += show_answers(study)
    classes = list_all_classes(study, rows, row_recipes(study, name)) if name in (*BASES, "run") else {}
    if classes:
        table = classes_table({labels.get(row, row): one for row, one in classes.items()})
        parts.append(render_part("folded", "All classes", table.to_html()))
    return Section(name, TITLES[name], parts)


def _describe_comparison(study: Study, rows: Rows) -> list[Markup]:
    """Order of Table IV's rows, and how exact one accuracy is."""
    images = study.results["data"]["test_images"]
    mix = {row: summarise([run["mix"] for run in runs]) for row, runs in rows.items()}
    error = standard_error([one.mean for one in mix.values()], images)
    about = f"One accuracy of ours has a binomial standard error of about {error:.1f} points ({images} test images)."
    return [
        render_part("note", describe_order(4, mix, images, METHOD_LABELS)),
        render_part("sentence", about),
    ]


def _show_previews(study: Study) -> Iterator[Markup]:
    """First inputs of one run of each augmentation."""
    yield render_part("sentence", "The first training images of the first mini-batch, as the phases received them.")
    seen = set()
    for name, rows in study.results["tables"].items():
        recipes = row_recipes(study, name)
        for row, runs in rows.items():
            recipe = recipes[row]
            drawn = [study.previews[run["folder"]] for run in runs if run["folder"] in study.previews]
            key = (recipe.augmentation, *(drawn[0].captions if drawn else ()), recipe.per, recipe.mosaic_p)
            if not drawn or key in seen:
                continue
            seen.add(key)
            label = METHOD_LABELS.get(recipe.augmentation, recipe.augmentation)
            yield render_part("heading", label)
            about = f"{label}, training images as the network saw them"
            yield show_strips(list(drawn[0].images), drawn[0].captions, about=about)


def _show_details(study: Study) -> Iterator[Markup]:
    """Runs, each once; the recipe; versions."""
    results = study.results
    runs: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for name, row, run in list_places(results["tables"]):
        if "best_mix" in run:
            runs.setdefault(name, {}).setdefault(LABELS.get(name, {}).get(row, row), []).append(run)
    for name, rows in runs.items():
        summary = "All runs" if len(runs) == 1 else f"Runs of {TITLES[name]}"
        yield render_part("folded", summary, runs_table(rows).to_html())
    recipe = [(name, value) for name, value in results["recipe"].items() if name != "name"]
    recipe.append(("backbone weights", results["weights"]))
    yield render_part("folded", f"Recipe {results['recipe']['name']}", render_part("values", recipe))
    environment = [*results["environment"].items(), ("written", results["created"])]
    yield render_part("folded", "Versions and machine", render_part("values", environment))
