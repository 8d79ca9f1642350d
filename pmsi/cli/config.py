"""`--config FILE`: defaults of a command from the config.json of a run, or from YAML with the same names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from pmsi.experiments.source import Source
from pmsi.models.trained import read_recipe
from pmsi.recipe import RECIPES, Recipe
from pmsi.runtime.files import describe_error, expand_home, read_bytes, read_json

_SOURCE: Mapping[str, tuple[type, ...]] = {
    "data": (str,),
    "root": (str, NoneType),
    "weights": (str,),
    "hold_out": (int, NoneType),
    "train_per_class": (int, NoneType),
    "skip_unreadable": (bool,),
}
_PREFIX = "recipe."  # of settings in the config.json of a run


class Defaults(NamedTuple):
    """Settings, data and seed that a file names."""

    settings: Recipe
    source: Source
    seed: int


def read_defaults(path: Path, recipe: str | None, *, weights_typed: bool) -> Defaults:
    """Read defaults from a file.

    Args:
        path: ``config.json`` of a run, whose facts about the data are left aside; or YAML (or JSON) of names and values
            as they are typed, and ``recipe`` for the rest.
        recipe: name of a recipe that was typed, which counts more than the file's.
        weights_typed: the command names initial weights.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged, holds a name that is no setting, a value of another type, or weights that only their
            digest is known of and that were not typed; or YAML cannot be read here.
    """
    path = expand_home(path)
    if not path.is_file():
        raise FileNotFoundError(f"--config: there is no file {path}")
    found = _read_values(path)
    of_run = any(name.startswith(_PREFIX) for name in found)
    known = {one.name for one in fields(Recipe)}

    # 1. Data, initial weights and seed.
    kinds = {**_SOURCE, "seed": (int,), "recipe": (str,)}
    for name, value in found.items():
        if name in kinds and (not isinstance(value, kinds[name]) or isinstance(value, bool) > (name[:4] == "skip")):
            raise ValueError(f"--config: {path} has {name} = {value!r}, which is no value of that setting")
        if not of_run and name not in kinds and name not in known:
            raise ValueError(f"--config: {path} names {name}, which is no setting; `pmsi train --help` lists them")
    source = {name: found[name] for name in _SOURCE if name in found}
    if of_run and source.get("weights", "none") not in ("none", "imagenet"):
        if not weights_typed:
            raise ValueError(f"--config: the run of {path} began with {source['weights']}; give it with --weights")
        del source["weights"]
    if source.get("root") is not None:
        source["root"] = Path(source["root"])

    # 2. The recipe.
    chosen = recipe or found.get("recipe")
    if chosen is not None and chosen not in RECIPES:
        raise ValueError(f"--config: {path} names the recipe {chosen!r}; there are {', '.join(RECIPES)}")
    base = next((one for key, one in RECIPES.items() if key == chosen), Recipe()).to_dict()
    values = {key.removeprefix(_PREFIX): value for key, value in found.items() if key.startswith(_PREFIX)}
    if not of_run:
        values = base | {key: value for key, value in found.items() if key in known}
    try:
        settings = read_recipe(values, "", written_by=found.get("written_by"))
    except ValueError as error:
        raise ValueError(f"--config: {path}: {error}") from error
    return Defaults(settings, Source(**source), found.get("seed", 0))


def _read_values(path: Path) -> dict[str, Any]:
    """Read names and values; dashes in names become underscores."""
    if path.suffix == ".json":
        return read_json(path) or {}
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ValueError("--config: YAML needs the package pyyaml, which is missing; pip install pyyaml") from error
    try:
        found = yaml.safe_load(read_bytes(path).decode())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"--config: {path} is no YAML ({describe_error(error, 150)})") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"--config: {path} must hold names and values, one line each: epochs: 20")
    return {name.replace("-", "_"): value for name, value in found.items()}
