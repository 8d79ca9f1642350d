"""Tables as lists of recipes: rows are the paper's, and each changes what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pmsi.experiments.tables import CANDIDATES, NAMES, Name, name_run, rival_recipe, table_recipes
from pmsi.models.registry import network_class
from pmsi.paper import TABLES
from pmsi.recipe import MODERN, NETWORKS, RECIPES
from tests.helpers.small_study import SHORT


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_the_papers(name: Name) -> None:
    rows = table_recipes(name, RECIPES["quick"])
    if name == "figure4":
        assert list(rows) == ["pmsi"]
    elif name == "table7":
        assert list(rows) == ["baseline", "pmsi"]
    elif name.startswith("table"):
        assert set(TABLES[int(name[-1])].rows) == {*rows} - {"cnl"}
    else:
        assert next(iter(rows)) == "rmg"


def test_each_row_changes_what_it_says() -> None:
    base = RECIPES["quick"]
    rows = table_recipes("table3", base)
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
    assert [recipe.stages for recipe in table_recipes("table2", base).values()] == [1, 2, 3, 4, 5]
    assert {recipe.augmentation for recipe in table_recipes("table2", base).values()} == {"none"}
    assert rows["pm"] == table_recipes("table4", base)["none"] == table_recipes("table2", base)["3"]
    assert rows["pmr"] == table_recipes("table4", base)["rmg"] == table_recipes("table5", base)["pmsi"]
    assert rows["pmr"] == table_recipes("table6", base)["mobilenet_v2 pmsi"] == table_recipes("figure4", base)["pmsi"]
    assert {recipe.backbone for recipe in table_recipes("table6", base).values()} == {
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
    names = {name_run(replace(SHORT, dropout=dropout), seed) for dropout in (0.5, 0.1) for seed in (0, 1)}
    assert len(names) == 4
    assert name_run(SHORT, 0) == name_run(replace(SHORT), 0)


def test_candidates_change_one_thing_each_and_modern_what_was_kept() -> None:
    base = RECIPES["paper"]
    rows = table_recipes("candidates", base)
    first = rows["rmg"].to_dict()
    assert set(rows) == {"rmg", *CANDIDATES, "modern"}
    for row, recipe in rows.items():
        changed = {key: value for key, value in recipe.to_dict().items() if value != first[key]}
        assert changed == ({} if row == "rmg" else MODERN if row == "modern" else CANDIDATES[row]), row
    assert rows["modern"] == RECIPES["modern"]
    short = table_recipes("candidates", RECIPES["quick"])
    assert "one cycle" not in short  # it has it already
    assert table_recipes("modern", base) == {"rmg": rows["rmg"], "modern": rows["modern"]}
    network = {"stages", "interaction", "network", "backbone", "feature_width", "hidden_width"}
    assert not network & {*MODERN}  # the same network at inference
