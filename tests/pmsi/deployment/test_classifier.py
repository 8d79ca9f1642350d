"""Classifiers give the network's own answers, by Mix or Concat."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pmsi.deployment.classifier import explain_answers, make_classifier, open_classifier
from pmsi.models.trained import open_trained
from pmsi.recipe import Recipe
from tests.helpers.small_export import make_blue


def test_a_classifier_answers_as_the_test_did(run: Path) -> None:
    trained = open_trained(run / "last.ckpt")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    for output in ("mix", "concat"):
        classifier, description = make_classifier(trained, run / "last.ckpt", output)
        logits = trained.network(classifier.normalise(images))
        wanted = torch.softmax(getattr(logits, output) / trained.temperature, 1)
        assert torch.allclose(classifier(images), wanted)
        assert description.output == output
    assert make_classifier(trained, run / "last.ckpt")[1].output == "mix"
    recipe = Recipe(augmentation="none", progressive=False)
    plain = replace(trained, recipe=recipe, about={})
    classifier, description = make_classifier(plain, run / "last.ckpt")
    assert (description.output, description.temperature, description.crop) == ("concat", 1.0, recipe.crop)
    with pytest.raises(ValueError, match=r"--output mix: the stages of .* are not trained; take concat"):
        make_classifier(plain, run / "last.ckpt", "mix")


def test_maps_explain_an_answer(run: Path) -> None:
    classifier, _ = open_classifier(run / "last.ckpt")
    maps = explain_answers(classifier, torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1]))
    assert maps.shape == (2, 1, 1)
    blue, _, checked = make_blue(2)
    blue.network.backbone = torch.nn.Identity()
    with pytest.raises(ValueError, match="Grad-CAM: the feature maps of this network cannot be caught"):
        explain_answers(blue, torch.from_numpy(checked.images), torch.tensor([0, 1]))
