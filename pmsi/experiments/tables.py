"""Recipes of the runs that make up each table of the paper."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

from pmsi.models.registry import network_class
from pmsi.recipe import METHODS, MODERN, RECIPES, NetworkName, Recipe

PaperName = Literal["table2", "table3", "table4", "table5", "table6", "table7", "figure4"]
Name = Literal[PaperName, "candidates", "modern"]
Choice = Literal["all", Name]
NAMES: tuple[Name, ...] = get_args(Name)
PAPER_NAMES: tuple[PaperName, ...] = get_args(PaperName)  # "all"
# Ways to train that may be better than the paper's, one at a time.
CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    "one cycle": {"schedule": "onecycle"},
    "a draw per image": {"per": "sample"},
    "uniform shuffles": {"permutation": "uniform"},
    "shared chain": {"chain": "shared"},
    "half of the images": {"mosaic_p": 0.5},
    "label smoothing": {"label_smoothing": 0.1},
    "averaged weights": {"ema_decay": 0.999},
    "whole test images": {"test_whole": True},
}


def table_recipes(name: Name, base: Recipe) -> dict[str, Recipe]:
    """The runs of a table by its rows in `pmsi.paper`, or of the figure: ``base`` with one thing changed in each.

    Two are not the paper's. "candidates": RMG-PMSI under ``base``, each of `CANDIDATES` that ``base`` does not have
    already, and all that were kept; "modern": the first and the last of these.
    """
    plain = replace(base, augmentation="none")
    baseline = rival_recipe("baseline", base)
    ours = replace(base, augmentation="rmg")
    if name == "table2":
        return {str(stages): replace(plain, stages=stages) for stages in range(1, 6)}
    if name == "table3":
        return {
            "baseline": baseline,
            "m": replace(plain, progressive=False),
            "p": replace(plain, interaction=False),
            "pm": plain,
            "pr": replace(ours, interaction=False),
            "pmr": ours,
        }
    if name == "table4":
        return {method: replace(base, augmentation=method) for method in METHODS}
    if name == "table5":
        rivals: tuple[NetworkName, ...] = ("bcnn", "hbp", "pc", "api", "pmg", "cnl")
        return {**{rival: rival_recipe(rival, base) for rival in rivals}, "pmsi": ours}
    if name == "table6":
        names = ("mobilenet_v2", "resnet18", "resnet34")
        return {
            row: replace(recipe, backbone=backbone)
            for backbone in names
            for row, recipe in ((backbone, baseline), (f"{backbone} pmsi", ours))
        }
    if name in ("candidates", "modern"):
        tried = CANDIDATES if name == "candidates" else {}
        changed = {row: replace(ours, **change) for row, change in {**tried, "modern": MODERN}.items()}
        return {"rmg": ours, **{row: recipe for row, recipe in changed.items() if recipe != ours}}
    return {"baseline": baseline, "pmsi": ours} if name == "table7" else {"pmsi": ours}


def rival_recipe(name: NetworkName, base: Recipe) -> Recipe:
    """A rival's own recipe; at another budget than the paper's, the budget's image size, length and rates.

    Frozen epochs keep their share, and new layers learn as much faster than the backbone as they do in the rival's own
    recipe, if that is more (features of unit length need rates a hundred times as large).
    """
    paper, own = RECIPES["paper"], dict(network_class(name).recipe)
    if base.epochs != paper.epochs and name != "baseline":
        full = replace(paper, network=name, **own)
        ratio = max(full.lr_new / full.lr_backbone, base.lr_new / base.lr_backbone)
        own = {key: value for key, value in own.items() if key not in ("resize", "epochs", "lr_backbone")}
        own |= {
            "freeze_epochs": round(full.freeze_epochs / full.epochs * base.epochs),
            "lr_new": base.lr_backbone * ratio,
        }
    return replace(base, network=name, **own)


def name_run(recipe: Recipe, seed: int) -> str:
    """The folder of a run: what it is, and a digest of all its settings."""
    digest = hashlib.sha256(json.dumps(recipe.to_dict(), sort_keys=True).encode()).hexdigest()[:10]
    return f"{recipe.network}-{recipe.augmentation}-{digest}-seed{seed}"
