"""Differences between the protocol of a study and the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pmsi.paper import TABLES
from pmsi.recipe import RECIPES
from pmsi.report.table import Table

# Widths that None stands for in the paper: MobileNetV2's, by the published rule.
_WIDTHS = {"feature_width": "640", "hidden_width": "320"}
_WORDS = {"batch_norm_images": "a process's own", "classes_per_batch": "any"}


def differences_table(results: Mapping[str, Any]) -> Table:
    """Settings, data and weights that differ from the paper's, one a row: what, the paper, here.

    Args:
        results: what ``results.json`` holds.
    """
    recipe, data = results["recipe"], results["data"]
    pairs = [
        ("data", _describe_data(_papers_data(data["name"])), _describe_data(data)),
        ("backbone weights", "ImageNet", "random" if results["weights"] == "none" else "ImageNet"),
        ("reported epoch", "best on the test images, each column by itself (its code)", "last"),
        ("seeds", "not said", ", ".join(map(str, results["seeds"])) or "none"),
    ]
    grid = results.get("grid", {})
    if grid:
        pairs.append(("regimes: images a class", "all", ", ".join(map(str, grid["per_class"]))))
        pairs.append(("regimes: epochs", str(RECIPES["paper"].epochs), ", ".join(map(str, grid["epochs"]))))
    unused = {"augmentation"} | ({"epochs"} if [*results["tables"]] == ["regimes"] else set())
    for name, theirs in RECIPES["paper"].to_dict().items():
        if name in recipe and name not in unused:
            pairs.append((name.replace("_", " "), _show_setting(name, theirs), _show_setting(name, recipe[name])))
    return Table("", ("what", "paper", "here"), tuple(pair for pair in pairs if pair[1] != pair[2]), words=True)


def list_choices(recipe: Mapping[str, Any]) -> list[str]:
    """Sentences on what the paper leaves open about Table IV, and what is done here."""
    scopes = {
        "iteration": "the batch is mixed once per iteration and used in every phase, with its two-target loss",
        "phase": "every phase mixes the batch anew",
        "progressive": "the stages' phases mix the batch anew and the concat sees it raw",
    }
    scope = recipe["mix_scope"]
    mixing = (
        f'The paper does not say how mixing methods enter the phases. Here (scope "{scope}") {scopes[scope]}. Nor does '
        "it give the figures of CutMix, MixUp and SnapMix: those under \"paper\" are SnapMix's authors' for "
        "fine-grained data."
    )
    maps = (
        "SnapMix's maps come from an auxiliary linear head on detached last-stage features, because the network's own "
        "classifiers are not linear on pooled maps."
    )
    tiles = (
        "Jigsaw uses n = 8, 4, 2 tiles per side and the raw image, the same smallest patches as RMG with r = 3, 2, 1, "
        f"0. Shuffles: {recipe['permutation']}, drawn per {recipe['per']}."
    )
    tested = (
        "Concat and Mix are of the same weights. The best epoch, chosen on the test images, is listed with the runs."
    )
    return [mixing, maps, tiles, tested]


def _show_setting(name: str, value: Any) -> str:
    if value is None:
        return {**_WIDTHS, **_WORDS}.get(name, "none")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _papers_data(name: str) -> dict[str, Any]:
    """Table I's row of the same data set; CUB-200-2011, which the paper's studies are on, for others."""
    chosen = name if name in TABLES[1].rows else "cub"
    classes, train, test = TABLES[1].rows[chosen].values
    return {"name": chosen, "classes": classes, "train_images": train, "test_images": test}


def _describe_data(data: Mapping[str, Any]) -> str:
    return f"{data['name']}: {data['classes']} classes, {data['train_images']} / {data['test_images']} images"
