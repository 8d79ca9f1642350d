"""Recipes: the figures of the paper and of the published code, and the bounds of every setting."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pmsi.recipe import RECIPES, Recipe

PAPER = {
    "resize": 512,
    "crop": 448,
    "batch_size": 32,
    "epochs": 150,
    "freeze_epochs": 5,
    "lr_backbone": 1e-4,
    "lr_new": 1e-3,
    "schedule": "cosine",
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "dropout": 0.5,
    "stages": 3,
    "interaction": True,
    "progressive": True,
    "concat_weight": 2.0,
    "max_recursions": 3,
    "augmentation": "rmg",
}
RELEASED = {"lr_backbone": 3e-4, "lr_new": 3e-3, "schedule": "released", "permutation": "cyclic", "per": "batch"}


def test_figures_of_the_paper_and_of_its_code() -> None:
    assert PAPER.items() <= RECIPES["paper"].to_dict().items()
    assert (PAPER | RELEASED).items() <= RECIPES["released"].to_dict().items()


def test_recipes_are_plain_values() -> None:
    for recipe in RECIPES.values():
        assert Recipe(**json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("field", "value", "range_"),
    [
        ("stages", 0, r"1\.\.5"),
        ("stages", 6, r"1\.\.5"),
        ("epochs", 0, "above 0"),
        ("freeze_epochs", 151, r"0\.\.150"),
        ("freeze_epochs", -1, r"0\.\.150"),
        ("crop", 0, "above 0"),
        ("resize", 447, r"448\.\.inf"),
        ("batch_size", 1, r"2\.\.inf"),
        ("lr_backbone", 0.0, "above 0"),
        ("lr_new", -1.0, "above 0"),
        ("dropout", 1.5, r"0\.\.1"),
        ("warmup", -0.1, r"0\.\.1"),
        ("max_recursions", -1, r"0\.\.10"),
        ("cutmix_alpha", 0.0, "above 0"),
        ("mixup_alpha", float("nan"), "above 0"),
        ("snapmix_beta", -5.0, "above 0"),
        ("cutmix_p", 1.01, r"0\.\.1"),
        ("mixup_p", float("nan"), r"0\.\.1"),
        ("snapmix_p", -0.01, r"0\.\.1"),
        ("batch_norm_momentum", 2.0, r"0\.\.1"),
        ("momentum", 1.5, r"0\.\.1"),
        ("weight_decay", -1e-4, r"0\.\.inf"),
        ("concat_weight", 0.0, "above 0"),
        ("feature_width", 0, "above 0"),
        ("hidden_width", -8, "above 0"),
        ("smooth_width", 0, "above 0"),
        ("label_smoothing", 1.5, r"0\.\.1"),
        ("ema_decay", -0.5, r"0\.\.1"),
        ("mosaic_p", 1.01, r"0\.\.1"),
        ("mosaic_until", -0.1, r"0\.\.1"),
        ("concat_recursions", 4, r"0\.\.3"),
        ("distill_weight", -1.0, r"0\.\.inf"),
        ("layer_decay", 0.0, "above 0"),
        ("layer_decay", 1.1, r"0\.\.1"),
        ("width_mult", 0.34, r"0\.35\.\.1\.4"),
        ("width_mult", 1.5, r"0\.35\.\.1\.4"),
        ("width_mult", float("nan"), r"0\.35\.\.1\.4"),
    ],
)
def test_bounds(field: str, value: Any, range_: str) -> None:
    with pytest.raises(ValueError, match=rf"recipe: {field} must .*{range_}, got {value}"):
        replace(RECIPES["paper"], **{field: value})


@pytest.mark.parametrize("augmentation", ["rmg", "jigsaw"])
def test_augmentations_of_phases_need_phases(augmentation: Any) -> None:
    with pytest.raises(ValueError, match=f"recipe: {augmentation} makes the phases' inputs"):
        replace(RECIPES["paper"], augmentation=augmentation, progressive=False)
    assert not replace(RECIPES["paper"], augmentation="cutmix", progressive=False).progressive


@pytest.mark.parametrize("backbone", ["resnet18", "timm:mobilenetv2_050"])
def test_widths_are_mobilenet_v2s(backbone: str) -> None:
    message = rf"recipe: width_mult=0\.5 is for mobilenet_v2; {backbone} needs 1\.0"
    with pytest.raises(ValueError, match=message):
        replace(RECIPES["paper"], backbone=backbone, width_mult=0.5)
    assert replace(RECIPES["paper"], backbone=backbone).width_mult == 1


def test_rates_fall_with_depth_where_the_levels_are_known() -> None:
    with pytest.raises(ValueError, match=r"layer_decay=0\.7 needs a backbone whose levels are known, and .* timm:mine"):
        replace(RECIPES["paper"], backbone="timm:mine", layer_decay=0.7)
    assert replace(RECIPES["paper"], backbone="resnet18", layer_decay=0.7).layer_decay == 0.7
