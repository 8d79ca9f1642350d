"""Results of a study: what ``results.json`` holds, also as older versions wrote it, and what else its page shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import torch
from torch import Tensor

from pmsi.data.dataset import Dataset
from pmsi.evaluation.accuracy import Evaluation
from pmsi.evaluation.calibration import rank_answers
from pmsi.experiments.folder import Predictions, check_run, locate_run, read_config, read_predictions, read_result
from pmsi.experiments.pictures import (
    Activations,
    Errors,
    Preview,
    read_activations,
    read_errors,
    read_pointing,
    read_preview,
)
from pmsi.experiments.source import Source, describe_data, describe_weights
from pmsi.experiments.tables import COSTED, Grid, Name, Row
from pmsi.models.trained import read_recipe
from pmsi.recipe import Recipe
from pmsi.runtime.environment import describe_environment
from pmsi.runtime.files import check_fields, read_json
from pmsi.runtime.session import Session

SCHEMA = 2
Tables = Mapping[Name, Mapping[str, Row]]
Rows = Mapping[str, Sequence[Mapping[str, Any]]]  # finished runs by row, one for each seed


@dataclass(frozen=True)
class Study:
    """Values of one or more runs that a page shows.

    Args:
        results: what ``results.json`` holds.
        predictions: of the test images, by the folder of a run.
        previews: first inputs of the network, by the folder of a run.
        activations: Figure 4's maps.
        pointing: scores of the pointing game.
        errors: worst errors of the one run.
    """

    results: Mapping[str, Any]
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    previews: Mapping[str, Preview] = field(default_factory=dict)
    activations: Activations | None = None
    pointing: Mapping[str, Any] | None = None
    errors: Errors | None = None

    @property
    def base(self) -> Recipe:
        """Recipe that the rows of all tables start from."""
        return read_recipe({name: value for name, value in self.results["recipe"].items() if name != "name"}, "")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; numbers in results of schema 1, which have no names."""
        data = self.results["data"]
        return tuple(data.get("class_names") or [f"class {number}" for number in range(data["classes"])])

    @property
    def grid(self) -> Grid:
        """Points of the table "regimes", if there is one."""
        return Grid(**{name: tuple(values) for name, values in self.results.get("grid", {}).items()})

    def join_predictions(
        self, recipe: Recipe, runs: Sequence[Mapping[str, Any]], *, output: Literal["mix", "concat"] | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """Labels ``[N]`` and predictions ``[S, N]`` of a row's runs; None where a run is missing, or its predictions.

        Args:
            recipe, runs: of the row.
            output: "mix" or "concat"; None takes Mix, or Concat where the stages are not trained.
        """
        found = [self.predictions[run["folder"]] for run in runs if run["folder"] in self.predictions]
        if not found or len(found) < len(runs):
            return None
        output = output or ("mix" if recipe.progressive else "concat")
        chosen = [one.mix if output == "mix" else one.concat for one in found]
        return found[0].labels, torch.stack(chosen)


def describe_study(
    source: Source, dataset: Dataset, base: Recipe, recipe_name: str, session: Session
) -> dict[str, Any]:
    """Facts that all runs of a study share, ready for JSON."""
    return {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": describe_data(dataset),
        "weights": describe_weights(source.find_weights(base.backbone)),
        "recipe": {"name": recipe_name, **base.to_dict()},
        "environment": describe_environment(session.fabric),
    }


def gather_results(folder: Path, facts: Mapping[str, Any], tables: Tables) -> dict[str, Any]:
    """Make ``results.json``: `describe_study`, and every finished run of the tables, of any seed."""
    found = {
        name: {row: [read_result(place) for place in list_finished(folder, one)] for row, one in rows.items()}
        for name, rows in tables.items()
    }
    results = {**facts, "seeds": sorted({run["seed"] for run in list_runs(found)}), "tables": found}
    configs = [read_config(folder / run["folder"]) or {} for run in list_runs(found)]
    results["written_by"] = sorted({one["written_by"] for one in configs if one.get("written_by")})
    measured = {
        row: [one for run in runs if (one := _read_robustness(folder / run["folder"])) is not None]
        for row, runs in found.get("table7", {}).items()
    }
    if any(measured.values()):
        results["robustness"] = {row: runs for row, runs in measured.items() if runs}
    return results


def gather_run(folder: Path, facts: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Make ``results.json`` of a run by itself: `describe_study`, and a table "run" of one row."""
    run = {**read_result(folder), "folder": "."}
    results = {**facts, "seeds": [run["seed"]], "tables": {"run": {_name_row(recipe): [run]}}}
    robustness = read_json(folder / "robustness.json")
    return results if robustness is None else {**results, "robustness": {_name_row(recipe): [robustness]}}


def describe_test(facts: Mapping[str, Any], recipe: Recipe, seed: int, found: Evaluation, labels: Tensor) -> Study:
    """Results of a network that was tested, without its training."""
    run = {"folder": ".", "seed": seed, "concat": found.concat, "mix": found.mix, "stages": list(found.stages)}
    tables = {"run": {_name_row(recipe): [{**run, "curve": []}]}}
    answers = rank_answers(found.logits, labels) if found.logits.numel() else None
    predictions = Predictions(labels, found.concat_predictions, found.mix_predictions, answers)
    return Study({**facts, "seeds": [seed], "tables": tables}, {".": predictions})


def _name_row(recipe: Recipe) -> str:
    return f"{recipe.network}, {recipe.augmentation}"


def list_finished(folder: Path, row: Row) -> list[Path]:
    """List the folders of a row's finished runs, by seed."""
    names = (path.parent.name.rpartition("seed")[2] for path in folder.glob("*-seed*/result.json"))
    places = [locate_run(folder, row, seed) for seed in sorted({int(name) for name in names if name.isdecimal()})]
    return [place for place in places if (place / "result.json").exists()]


def list_places(tables: Mapping[Any, Rows]) -> Iterator[tuple[Any, str, Mapping[str, Any]]]:
    """List (table, row, run) of all tables: each run once, at its first place, although tables share runs."""
    seen = set()
    for name, rows in tables.items():
        for row, runs in rows.items():
            for run in runs:
                if run["folder"] not in seen:
                    seen.add(run["folder"])
                    yield name, row, run


def list_runs(tables: Mapping[Any, Rows]) -> Iterator[Mapping[str, Any]]:
    """List the runs of all tables, each once although tables share runs."""
    return (run for _, _, run in list_places(tables))


def list_records(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Epochs of all runs, each run once: what ``metrics.jsonl`` holds."""
    for name, row, run in list_places(results["tables"]):
        yield from ({"table": name, "method": row, "seed": run["seed"], **one} for one in run["curve"])


def read_results(folder: Path) -> dict[str, Any]:
    """``results.json`` of a folder; schema 1, which `pmsi compare` and `pmsi reproduce` wrote, is turned into schema 2.

    Raises:
        FileNotFoundError: no such file. ValueError: it is of a newer version, or no results.
    """
    path = folder / "results.json"
    found = read_json(path)
    if found is None:
        raise FileNotFoundError(f"there is no file {path}")
    check_fields(found, {"schema": (int,), "environment": (dict, NoneType)}, path)
    schema = found["schema"]
    if schema == SCHEMA:
        _check_results(found, path)
        return found
    if schema != 1:
        wrote = found.get("environment") or {}
        version = f"pmsi {wrote.get('mosaicaug', 'unknown')}, commit {wrote.get('commit', 'unknown')}"
        raise ValueError(
            f"{path} has schema {schema!r}, written by {version}; this version reads 1 and {SCHEMA}: "
            "use that version, or choose another --run folder"
        )
    try:
        upgraded = _upgrade(found, folder)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); remove it, and the same command writes it anew") from error
    _check_tables(upgraded["tables"], path)
    return upgraded


def load_study(folder: Path) -> Study:
    """Results of a folder with the predictions and pictures that its runs have.

    Raises:
        FileNotFoundError: it has no ``results.json``. ValueError: as for `read_results`.
    """
    results = read_results(folder)
    places = {run["folder"]: folder / run["folder"] for run in list_runs(results["tables"])}
    predictions = {name: read_predictions(place) for name, place in places.items()}
    previews = {name: read_preview(place) for name, place in places.items()}
    drawn = [folder / run["folder"] for run in results["tables"].get("figure4", {}).get("pmsi", [])]
    drawn = [place for place in drawn if (place / "activations.npz").exists()]
    return Study(
        results,
        {name: one for name, one in predictions.items() if one is not None},
        {name: one for name, one in previews.items() if one is not None},
        read_activations(drawn[0]) if drawn else None,
        read_pointing(drawn[0]) if drawn else None,
        read_errors(folder) if "run" in results["tables"] else None,
    )


def _upgrade(found: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Schema 1 as schema 2: `compare` kept Table IV's rows in a list, and `reproduce` no learning curves."""
    if "rows" in found:
        tables = {
            "table4": {
                row["method"]: [{"folder": f"{row['method']}-seed{run['seed']}", **run} for run in row["runs"]]
                for row in found["rows"]
            }
        }
    else:
        tables = {
            name: {row: [_add_curve(run, folder) for run in runs] for row, runs in rows.items()}
            for name, rows in found["tables"].items()
        }
    kept = {name: value for name, value in found.items() if name not in ("rows", "strips", "experiment")}
    seeds = sorted({run["seed"] for run in list_runs(tables)})
    return {**kept, "schema": SCHEMA, "seeds": seeds, "tables": tables}


def _check_results(found: Mapping[str, Any], path: Path) -> None:
    """ValueError unless ``results.json`` has the values that tables and pages are made of."""
    parts = ("data", "recipe", "environment", "tables")
    check_fields(found, {**dict.fromkeys(parts, (dict,)), "seeds": (list,), "created": (str,), "weights": (str,)}, path)
    check_fields(found["data"], {"name": (str,), "classes": (int,), "test_images": (int,), "protocol": (str,)}, path)
    _check_tables(found["tables"], path)
    for name in found["tables"].keys() & {*COSTED}:
        check_fields(found, {"costs": (dict,)}, path)
        check_fields(found["costs"], {name: (dict,)}, path)
        for row in ("baseline", *found["tables"][name]):
            check_fields(found["costs"][name], {row: (dict,)}, path)
            check_fields(found["costs"][name][row], dict.fromkeys(("macs", "int8_bytes"), (int,)), path)


def _check_tables(tables: Mapping[str, Any], path: Path) -> None:
    for name, rows in tables.items():
        check_fields({name: rows}, {name: (dict,)}, path)
        check_fields(rows, dict.fromkeys(rows, (list,)), path)
        for run in (run for runs in rows.values() for run in runs):
            check_run(run, path)


def _read_robustness(folder: Path) -> dict[str, Any] | None:
    found = read_json(folder / "robustness.json")
    for kind in found or {}:
        check_fields((found or {})[kind], dict.fromkeys(("concat", "mix"), (int, float)), folder / "robustness.json")
    return found


def _add_curve(run: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    result = read_json(folder / run["folder"] / "result.json")
    return {**run, "curve": [] if result is None else result["curve"]}
