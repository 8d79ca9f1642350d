"""Trained networks with what their checkpoints say of them: recipe, classes, preprocessing, data, versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pmsi.models.base import Network
from pmsi.models.registry import read_network
from pmsi.recipe import Recipe
from pmsi.runtime.checkpoints import load_checkpoint
from pmsi.runtime.files import check_fields

# Types of what is read of a checkpoint's identity, apart from the recipe.
_IDENTITY = {
    "classes": (int,),
    "class_names": (list, NoneType),
    **dict.fromkeys(("data", "root", "weights"), (str, NoneType)),
    **dict.fromkeys(("hold_out", "seed"), (int, NoneType)),
    "skip_unreadable": (bool, NoneType),
}


@dataclass(frozen=True)
class Trained:
    """A trained network and what its checkpoint says of it.

    Args:
        network: the one that is tested, in eval mode.
        recipe: of its training.
        classes: K names; numbers where an earlier version kept none.
        named: the names are the checkpoint's own.
        identity: of its run: data set, weights, seed.
        about: preprocessing, versions and temperature; empty in a checkpoint of an earlier version.
        written_by: `pmsi.runtime.environment.name_version` of the code that wrote it; None if it is not known.
    """

    network: Network
    recipe: Recipe
    classes: tuple[str, ...]
    named: bool
    identity: Mapping[str, Any]
    about: Mapping[str, Any]
    written_by: str | None

    @property
    def temperature(self) -> float | None:
        """Temperature that calibrates the network's answers; None where none was fitted."""
        return self.about.get("temperature")


def open_trained(path: Path) -> Trained:
    """Open a checkpoint of `pmsi train`, or of a `pmsi.Trainer`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged, none of ours, or of another version that this one cannot read.
    """
    state = load_checkpoint(path)
    identity, written_by = state["identity"], state.get("written_by")
    if "classes" not in identity:
        raise ValueError(f"{path} does not say what it was trained on; it is of no run of pmsi")
    check_fields(identity, _IDENTITY, path)
    names = identity.get("class_names")
    check_fields(dict(enumerate(names or ())), dict.fromkeys(range(len(names or ())), (str,)), path)
    recipe = read_recipe(identity, written_by=written_by)
    network = read_network(state, recipe, identity["classes"], path).eval()
    classes = tuple(names or map(str, range(identity["classes"])))
    return Trained(network, recipe, classes, names is not None, identity, state.get("about", {}), written_by)


def read_recipe(stored: Mapping[str, Any], prefix: str = "recipe.", *, written_by: str | None = None) -> Recipe:
    """Recipe of stored values, in which settings that were added later are missing and have their defaults.

    Args:
        stored: an identity, or with ``prefix=""`` what `Recipe.to_dict` gave.
        prefix: of the names of settings.
        written_by: `name_version` of the code that stored them; None if it is not known.

    Raises:
        ValueError: it holds a setting that this version does not know.
    """
    values = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
    version = written_by or "another version of pmsi"
    unknown = sorted(values.keys() - {one.name for one in fields(Recipe)})
    if unknown:
        raise ValueError(f"the recipe has a setting {unknown[0]!r}, of {version}; use that version")
    hints = get_type_hints(Recipe)
    odd = [f"{name} is {value!r}" for name, value in values.items() if not isinstance(value, _list_types(hints[name]))]
    if odd:  # a text where this version has a number
        raise ValueError(f"the recipe has a value of {version} ({odd[0]}); use that version")
    return Recipe(**values)


def _list_types(hint: Any) -> tuple[type, ...]:
    """Types of the values that a hint allows; numbers may be whole where they need not be."""
    if isinstance(hint, UnionType):
        return tuple(kind for part in get_args(hint) for kind in _list_types(part))
    if get_origin(hint) is Literal:
        return tuple(type(choice) for choice in get_args(hint))
    return {float: (float, int), None: (NoneType,)}.get(hint, (hint,))
