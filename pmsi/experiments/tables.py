"""Rows of each table: the recipes and sources of its runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

from pmsi.experiments.source import Source
from pmsi.models.registry import network_class
from pmsi.recipe import METHODS, MOBILE, MODERN, RECIPES, Method, Recipe
from pmsi.recipe.networks import NetworkName

PaperName = Literal["table2", "table3", "table4", "table5", "table6", "table7", "figure4"]
Name = Literal[PaperName, "candidates", "modern", "mobile", "mobile-final", "regimes"]
Choice = Literal["all", Name]
NAMES: tuple[Name, ...] = get_args(Name)
PAPER_NAMES: tuple[PaperName, ...] = get_args(PaperName)  # "all"
# Ways to train that may be better than the paper's: single changes, or settings that belong together.
CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    "one cycle": {"schedule": "onecycle"},
    "a draw per image": {"per": "sample"},
    "uniform shuffles": {"permutation": "uniform"},
    "shared chain": {"chain": "shared"},
    "half of the images": {"mosaic_p": 0.5},
    "uniform, half, per image": {"per": "sample", "permutation": "uniform", "mosaic_p": 0.5},
    "mosaics in the first half": {"mosaic_until": 0.5},
    "mosaics in three quarters": {"mosaic_until": 0.75},
    "concat sees mosaics": {"concat_recursions": 1},
    "Mix teaches Concat": {"distill_weight": 1.0},
    "no deeper heads": {"deeper_heads": False},
    "label smoothing": {"label_smoothing": 0.1},
    "averaged weights": {"ema_decay": 0.999},
    "smoothing and average": {"label_smoothing": 0.1, "ema_decay": 0.999},
    "AdamW": {"optimizer": "adamw", "lr_backbone": 1e-4, "lr_new": 1e-3, "weight_decay": 0.01},
    "rates fall with depth": {"layer_decay": 0.7},
    "whole test images": {"test_whole": True},
}


def _make_heads(stages: int, feature_width: int, smooth_width: int) -> dict[str, Any]:
    """Settings of cheap heads; their classifiers, which cost little, are nearly as wide as the published ones."""
    widths = {"feature_width": feature_width, "hidden_width": 256, "smooth_width": smooth_width}
    return {"stages": stages, "smooth": "separable", **widths}


# Settings are chosen by these tables, so never on test images.
CHOOSING: tuple[Name, ...] = ("candidates", "mobile")
# Tables of networks that are compared by what they cost.
COSTED: tuple[Name, ...] = ("mobile", "mobile-final")
# Heads as published, which "mobile" starts from whatever the recipe has.
_HEADS = ("stages", "smooth", "feature_width", "hidden_width", "smooth_width", "distill_weight")
_PUBLISHED = {name: getattr(RECIPES["paper"], name) for name in _HEADS}
# Heads that may be cheap enough for a phone: their networks have 1.04 to 2.1 times the MACs of plain MobileNetV2, the
# published one 7.4 times; all but the first two are within 1.15 times and 4 MB of int8 weights for 200 classes.
MOBILE_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "narrow": {"feature_width": 256, "hidden_width": 128},
    "separable": {"smooth": "separable"},
    "separable 320": _make_heads(3, 320, 80),
    "separable 320, distilled": {**_make_heads(3, 320, 80), "distill_weight": 1.0},
    "separable 512": _make_heads(3, 512, 48),
    "separable 128": _make_heads(3, 128, 64),
    "separable 512, two stages": _make_heads(2, 512, 128),
    "full 320, two stages": {**_make_heads(2, 320, 48), "smooth": "full"},
    "full 320, two stages, distilled": {**_make_heads(2, 320, 48), "smooth": "full", "distill_weight": 1.0},
    "separable 640, one stage": _make_heads(1, 640, 128),
}


@dataclass(frozen=True)
class Row:
    """Recipe and source of the runs of a row, of which there is one for each seed."""

    recipe: Recipe
    source: Source = field(default_factory=Source)


@dataclass(frozen=True)
class Grid:
    """Points of "regimes": each method with each number of training images a class and each number of epochs.

    Raises:
        ValueError: nothing to vary, or a number below 1.

    >>> len(Grid(methods=("none", "rmg"), per_class=(5, 10), epochs=(25,)).list_points())
    4
    """

    methods: tuple[Method, ...] = ("none", "jigsaw", "rmg")
    per_class: tuple[int, ...] = (5, 10, 20, 30)
    epochs: tuple[int, ...] = (25, 50, 100, 200)

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            numbers = [value for value in values if isinstance(value, int)]
            if not values or min(numbers, default=1) < 1:
                words = "one method or more" if name == "methods" else "one number or more, each 1 or above"
                raise ValueError(f"regimes: --grid-{name.replace('_', '-')}: give {words}, got {list(values)}")

    def list_points(self) -> list[Point]:
        """List all points: numbers of images in ascending order, of each its numbers of epochs, of each the methods."""
        return [
            Point(method, per_class, epochs)
            for per_class in sorted({*self.per_class})
            for epochs in sorted({*self.epochs})
            for method in METHODS
            if method in self.methods
        ]


class Point(NamedTuple):
    """Point of a `Grid`: its augmentation, training images of each class, and epochs."""

    method: Method
    per_class: int
    epochs: int

    @property
    def row(self) -> str:
        """Name of the point's row."""
        return f"{self.method}, {self.per_class} a class, {self.epochs} epochs"


def table_rows(name: Name, base: Row, grid: Grid | None = None) -> dict[str, Row]:
    """Rows of a table by their names in `pmsi.paper`, or of the figure: ``base`` with one thing changed in each.

    Five are not the paper's. "candidates": RMG-PMSI under ``base``, the same without augmentation ("none"), each of
    `CANDIDATES` that ``base`` does not have already, and all that were kept; "modern": the first two and the last of
    these; "mobile": the baseline, PMSI with the published heads, and each of `MOBILE_VARIANTS`; "mobile-final": the
    first two of these and what was chosen; "regimes": the points of ``grid``.
    """
    if name == "regimes":
        return {
            point.row: Row(
                replace(base.recipe, augmentation=point.method, epochs=point.epochs),
                replace(base.source, train_per_class=point.per_class),
            )
            for point in (grid or Grid()).list_points()
        }
    return {row: replace(base, recipe=recipe) for row, recipe in _table_recipes(name, base.recipe).items()}


def _table_recipes(name: Name, base: Recipe) -> dict[str, Recipe]:
    """Recipes of a table whose rows share their source."""
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
        return {"rmg": ours, "none": plain, **{row: recipe for row, recipe in changed.items() if recipe != ours}}
    if name in COSTED:
        full = replace(base, **_PUBLISHED)
        tried = MOBILE_VARIANTS if name == "mobile" else {"mobile": MOBILE}
        return {"baseline": baseline, "full": full, **{row: replace(full, **change) for row, change in tried.items()}}
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


def name_run(row: Row, seed: int) -> str:
    """Name the folder of a run: what it is, and a digest of all settings of its recipe."""
    recipe, per_class = row.recipe, row.source.train_per_class
    digest = hashlib.sha256(json.dumps(recipe.to_dict(), sort_keys=True).encode()).hexdigest()[:10]
    images = "" if per_class is None else f"{per_class}-per-class-"
    return f"{recipe.network}-{recipe.augmentation}-{images}{digest}-seed{seed}"
