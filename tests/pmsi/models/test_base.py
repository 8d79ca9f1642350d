"""Losses of networks: smoothed labels, but not where a network compares images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mosaicaug import cross_entropy
from pmsi.experiments.tables import rival_recipe
from pmsi.models.registry import RIVALS, make_network
from pmsi.recipe import RECIPES
from tests.helpers.small_run import RECIPE


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("name", ["pmsi", "baseline", "pmg"])
def test_labels_are_smoothed_in_the_loss(name: Any) -> None:
    """By hand: 1 - s of the label's, and s of the mean over classes."""
    change: dict[str, Any] = {"network": name, "interaction": name == "pmsi", "progressive": name != "baseline"}
    recipe = replace(RECIPE, label_smoothing=0.2, augmentation="none", **change)
    network = make_network(recipe, 3).eval()
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 2, 1, 1])
    for output in [0, None] if name != "baseline" else [None]:
        logs = network(images).pick(output).log_softmax(1)
        wanted = -(0.8 * logs[range(4), labels] + 0.2 * logs.mean(1)).mean()
        torch.testing.assert_close(network.loss(images, labels, output), wanted)
        assert not torch.allclose(wanted, cross_entropy(network(images).pick(output), labels))


@pytest.mark.parametrize("name", ["pc", "api"])
def test_losses_of_comparisons_are_not_smoothed(name: Any) -> None:
    smoothed = replace(RECIPES["modern"], label_smoothing=0.1)
    recipe = rival_recipe(name, smoothed)
    assert recipe.label_smoothing == 0
    with pytest.raises(ValueError, match=f"recipe: network {name} has a loss of its own, so it needs label_smoothing="):
        replace(recipe, label_smoothing=0.1)
    assert {rival_recipe(rival, smoothed).network for rival in RIVALS} == {*RIVALS}  # type: ignore[arg-type]
