"""Differences of protocol: only what differs, and every setting that does."""

from __future__ import annotations

from typing import Any

from pmsi.recipe import RECIPES
from pmsi.report.differences import differences_table, list_choices
from tests.helpers.small_study import make_regimes, make_study


def read(**recipe: Any) -> dict[str, tuple[str, ...]]:
    results = make_study(none=[(80, 82), (81, 84)], rmg=[(79, 81.5)]).results
    results = {**results, "recipe": {**results["recipe"], **recipe}}
    return {row[0]: row[1:] for row in differences_table(results).rows}


def test_only_what_differs_is_listed() -> None:
    found = read()
    assert found["epochs"] == ("150", "2")
    assert found["backbone weights"] == ("ImageNet", "random")
    assert found["seeds"] == ("not said", "0, 1")
    assert found["data"] == ("cub: 200 classes, 5994 / 5794 images", "cub: 4 classes, 2999 / 400 images")
    assert found.keys() == {"data", "backbone weights", "reported epoch", "seeds", "epochs", "freeze epochs"}


def test_every_setting_that_differs_is_listed() -> None:
    found = read(augmentation="none", feature_width=256, lr_new=0.01, per="sample", cutmix_p=0.5, ema_decay=0.9)
    assert found["feature width"] == ("640", "256")
    assert found["lr new"] == ("0.001", "0.01")
    assert found["per"] == ("batch", "sample")
    assert found["cutmix p"] == ("1", "0.5")
    assert found["ema decay"] == ("none", "0.9")
    assert "augmentation" not in found


def test_every_setting_that_may_be_none_can_be_shown() -> None:
    """One that is added to the recipe needs no word here."""
    for name, value in RECIPES["paper"].to_dict().items():
        if value is None:
            assert read(**{name: 2})[name.replace("_", " ")][1] == "2"


def test_choices_name_what_was_done() -> None:
    recipe = {**RECIPES["paper"].to_dict(), "mix_scope": "phase", "per": "sample"}
    mixing, _, tiles, _ = list_choices(recipe)
    assert '(scope "phase") every phase mixes the batch anew' in mixing
    assert "Shuffles: cyclic, drawn per sample." in tiles


def test_regimes_differ_by_their_grid_and_not_by_the_epochs_of_the_recipe() -> None:
    results = make_regimes({("none", 5, 25): [60], ("rmg", 10, 50): [90]}).results
    found = {row[0]: row[1:] for row in differences_table(results).rows}
    assert found["regimes: images a class"] == ("all", "5, 10")
    assert found["regimes: epochs"] == ("150", "25, 50")
    assert "epochs" not in found
    both = {**results, "tables": {**results["tables"], "table4": {}}}
    assert ("epochs", "150", "2") in differences_table(both).rows
