"""Accuracy on test images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmsi.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from pmsi.data.storage import Split, make_store
from pmsi.evaluation.accuracy import evaluate
from pmsi.models.base import Logits
from pmsi.models.baseline import Baseline
from tests.helpers.small_run import (
    RECIPE,
    catch_inputs,
    make_backbone,
    make_dataset,
    make_session,
)


class Reader(nn.Module):
    """Reads the class off the brightness; stages are right, the concat is wrong but less sure of it."""

    def forward(self, images: Tensor) -> Logits:
        assert not self.training
        assert images.shape[1:] == (3, 32, 32)
        grey = images[:, 0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]
        assert torch.allclose(grey, grey[:, :1, :1], atol=1e-3)
        label = (grey[:, 0, 0] / 100).round().long()
        right, wrong = F.one_hot(label, 3).float(), F.one_hot((label + 1) % 3, 3).float()
        return Logits((right, right), 1.5 * wrong)


def test_evaluation_shows_central_crops_and_scores_concat_and_mix() -> None:
    labels = torch.arange(6) % 3
    images = torch.full((6, 3, 36, 36), 255, dtype=torch.uint8)
    images[:, :, 2:34, 2:34] = (labels * 100).byte()[:, None, None, None]
    labels[5] = 0  # an image that all get wrong but the concat
    reader = Reader().train()
    found = evaluate(reader, make_store(Split(images, labels), torch.device("cpu")), RECIPE, make_session())
    assert (found.concat, found.mix) == pytest.approx((100 / 6, 500 / 6))
    assert found.stages == pytest.approx((500 / 6, 500 / 6))
    assert found.mix_predictions.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.concat_predictions.tolist() == [1, 2, 0, 1, 2, 0]
    assert found.logits.argmax(1).tolist() == [0, 1, 2, 0, 1, 2]
    assert found.logits[0].tolist() == [2, 1.5, 0]  # Mix is a sum
    assert reader.training


def test_tests_may_see_whole_images() -> None:
    recipe = replace(RECIPE, test_whole=True)
    assert (RECIPE.test_side, recipe.test_side) == (32, 36)
    network = Baseline(make_backbone(), 3)
    seen = catch_inputs(network)
    store = make_store(make_dataset().test, torch.device("cpu"))
    evaluate(network, store, RECIPE, make_session())
    evaluate(network, store, recipe, make_session())
    inside, whole = seen[0], seen[len(seen) // 2]
    assert whole.shape[2:] == (36, 36)
    assert torch.equal(inside, whole[:, :, 2:34, 2:34])


def test_a_test_can_be_interrupted_between_mini_batches() -> None:
    """As often on every process, whether it has images or not."""
    called: list[None] = []
    dataset = make_dataset()

    class Zero(nn.Module):
        def forward(self, images: Tensor) -> Logits:
            return Logits((), torch.zeros(len(images), 3))

    evaluate(Zero(), dataset.test, RECIPE, make_session(), pause=lambda: called.append(None))
    assert len(called) == 2  # of 6 images, 4 at a time
