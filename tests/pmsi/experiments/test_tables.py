"""Tables as lists of recipes: rows are the paper's, and each changes what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pmsi.experiments.source import Source
from pmsi.experiments.tables import (
    CANDIDATES,
    MOBILE_VARIANTS,
    NAMES,
    Grid,
    Name,
    Row,
    name_run,
    rival_recipe,
    table_rows,
)
from pmsi.models.registry import network_class
from pmsi.paper import TABLES
from pmsi.recipe import MOBILE, MODERN, RECIPES, Recipe
from pmsi.recipe.networks import NETWORKS
from tests.helpers.small_study import SHORT


def list_recipes(name: Name, base: Recipe) -> dict[str, Recipe]:
    return {label: row.recipe for label, row in table_rows(name, Row(base)).items()}


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_the_papers(name: Name) -> None:
    rows = list_recipes(name, RECIPES["quick"])
    if name == "figure4":
        assert list(rows) == ["pmsi"]
    elif name == "table7":
        assert list(rows) == ["baseline", "pmsi"]
    elif name.startswith("table"):
        assert set(TABLES[int(name[-1])].rows) == {*rows} - {"cnl"}
    else:
        first = {"regimes": "none, 5 a class, 25 epochs", "mobile": "baseline", "mobile-final": "baseline"}
        assert next(iter(rows)) == first.get(name, "rmg")


def test_each_row_changes_what_it_says() -> None:
    base = RECIPES["quick"]
    rows = list_recipes("table3", base)
    switches = {
        row: (recipe.network, recipe.interaction, recipe.progressive, recipe.augmentation)
        for row, recipe in rows.items()
    }
    assert switches == {
        "baseline": ("baseline", False, False, "none"),
        "m": ("pmsi", True, False, "none"),
        "p": ("pmsi", False, True, "none"),
        "pm": ("pmsi", True, True, "none"),
        "pr": ("pmsi", False, True, "rmg"),
        "pmr": ("pmsi", True, True, "rmg"),
    }
    assert [recipe.stages for recipe in list_recipes("table2", base).values()] == [1, 2, 3, 4, 5]
    assert {recipe.augmentation for recipe in list_recipes("table2", base).values()} == {"none"}
    assert rows["pm"] == list_recipes("table4", base)["none"] == list_recipes("table2", base)["3"]
    assert rows["pmr"] == list_recipes("table4", base)["rmg"] == list_recipes("table5", base)["pmsi"]
    assert rows["pmr"] == list_recipes("table6", base)["mobilenet_v2 pmsi"] == list_recipes("figure4", base)["pmsi"]
    assert {recipe.backbone for recipe in list_recipes("table6", base).values()} == {
        "mobilenet_v2",
        "resnet18",
        "resnet34",
    }


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "pmsi"])
def test_rivals_keep_their_own_recipes_where_the_budget_is_the_papers(name: Any) -> None:
    own = rival_recipe(name, RECIPES["paper"])
    assert own == replace(RECIPES["paper"], network=name, **network_class(name).recipe)
    short = rival_recipe(name, RECIPES["quick"])
    assert (short.network, short.epochs, short.resize, short.crop) == (name, 4, 110, 96)
    assert short.lr_backbone == RECIPES["quick"].lr_backbone
    assert short.freeze_epochs <= 3
    if name in ("bcnn", "hbp"):
        assert short.lr_new / short.lr_backbone == pytest.approx(100)


def test_runs_are_named_by_all_their_settings() -> None:
    rows = [
        Row(replace(SHORT, dropout=dropout), Source(train_per_class=n)) for dropout in (0.5, 0.1) for n in (None, 2)
    ]
    names = {name_run(row, seed) for row in rows for seed in (0, 1)}
    assert len(names) == 8
    assert name_run(Row(SHORT), 0) == name_run(Row(replace(SHORT), Source(hold_out=3)), 0)
    assert name_run(rows[1], 1) == name_run(rows[0], 1).replace("pmsi-rmg-", "pmsi-rmg-2-per-class-")


def test_regimes_change_augmentation_epochs_and_images_a_class() -> None:
    base = Row(SHORT, Source(hold_out=3))
    grid = Grid(methods=("rmg", "none"), per_class=(10, 5, 10), epochs=(4, 2))
    rows = table_rows("regimes", base, grid)
    assert list(rows) == [
        f"{method}, {images} a class, {epochs} epochs"
        for images in (5, 10)
        for epochs in (2, 4)
        for method in ("none", "rmg")
    ]
    row = rows["none, 10 a class, 2 epochs"]
    assert row == Row(replace(SHORT, augmentation="none", epochs=2), Source(hold_out=3, train_per_class=10))
    assert len({name_run(row, 0) for row in rows.values()}) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ()}, r"--grid-methods: give one method or more, got \[\]"),
        ({"per_class": ()}, r"--grid-per-class: give one number or more, each 1 or above, got \[\]"),
        ({"epochs": (25, 0)}, r"--grid-epochs: give one number or more, each 1 or above, got \[25, 0\]"),
    ],
)
def test_an_empty_grid_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"regimes: {message}"):
        Grid(**change)


def test_candidates_change_what_they_say_and_modern_what_was_kept() -> None:
    base = RECIPES["paper"]
    rows = list_recipes("candidates", base)
    changes = {"rmg": {}, "none": {"augmentation": "none"}, **CANDIDATES, "modern": MODERN}
    assert rows == {row: replace(rows["rmg"], **change) for row, change in changes.items()}
    assert len({*rows.values()}) == len(rows)
    assert rows["modern"] == RECIPES["modern"]
    short = list_recipes("candidates", RECIPES["quick"])
    assert "one cycle" not in short  # it has it already
    assert list_recipes("modern", base) == {row: rows[row] for row in ("rmg", "none", "modern")}
    network = {"stages", "interaction", "network", "backbone", "feature_width", "hidden_width"}
    assert not network & {*MODERN}  # the same network at inference


def test_networks_for_phones_change_the_published_heads_alone() -> None:
    base = RECIPES["quick"]
    rows = list_recipes("mobile", base)
    full, heads = rows["full"], {"stages", "feature_width", "hidden_width", "smooth", "smooth_width"}
    assert list(rows) == ["baseline", "full", *MOBILE_VARIANTS]
    assert rows["baseline"] == list_recipes("table3", base)["baseline"]
    assert full == replace(base, feature_width=None, hidden_width=None)
    for row, changes in MOBILE_VARIANTS.items():
        assert rows[row] == replace(full, **changes)
        assert changes.keys() <= {*heads, "distill_weight"}
    assert len({name_run(Row(recipe), 0) for recipe in rows.values()}) == len(rows)
    final = list_recipes("mobile-final", base)
    assert list(final) == ["baseline", "full", "mobile"]
    assert final["mobile"] == replace(full, **MOBILE)
    assert list_recipes("mobile", RECIPES["mobile"])["full"] == RECIPES["paper"]  # whatever the base is
