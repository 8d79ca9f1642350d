"""SnapMix's head: its maps, and that it learns beside the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from pmsi.recipe import Recipe
from pmsi.training.batches import BatchPlan, plan_epoch
from pmsi.training.snapmix import SnapMixHead
from tests.helpers.small_run import RECIPE, make_dataset, make_trainer


def plan_batch(recipe: Recipe) -> BatchPlan:
    return next(plan_epoch(recipe, make_dataset().train.labels, seed=0, epoch=0))


@pytest.mark.usefixtures("small_backbone")
def test_snapmix_head_learns_beside_the_network(tmp_path: Path) -> None:
    recipe = replace(RECIPE, augmentation="snapmix")
    trainer = make_trainer(tmp_path, recipe)
    start = trainer.snapmix.head.weight.detach().clone()
    reached: list[bool] = []
    network = trainer.network
    trainer.snapmix.optimizer.register_step_pre_hook(
        lambda *_: reached.append(any(p.grad is not None for p in network.parameters()))
    )
    trainer.step(plan_batch(recipe))
    assert reached == [False]
    assert not torch.equal(trainer.snapmix.head.weight, start)
    assert trainer.snapmix.optimizer.param_groups[0]["lr"] == recipe.lr_new
    ids = {id(p) for group in trainer.parts["optimizer"].param_groups for p in group["params"]}
    assert not ids & {id(p) for p in trainer.snapmix.parameters()}


def test_maps_are_of_the_head_before_its_step() -> None:
    head = SnapMixHead(4, 3, RECIPE)
    features, labels = torch.rand(2, 4, 3, 3), torch.tensor([2, 0])
    weight, bias = head.head.weight.detach().clone(), head.head.bias.detach().clone()
    maps, pooled, momentum = head.maps(features, labels), features.mean((2, 3)), torch.zeros(3)
    by_hand = torch.stack(
        [(weight[k] @ x.flatten(1) + bias[k]).view(3, 3) for k, x in zip([2, 0], features, strict=True)]
    )
    for lr in (0.5, 0.25):
        slope = ((pooled @ weight.T + bias).softmax(1) - F.one_hot(labels, 3)).mean(0)
        momentum = RECIPE.momentum * momentum + slope + RECIPE.weight_decay * bias
        head.train_step(pooled, labels, lr=lr)
        bias, weight = bias - lr * momentum, head.head.weight.detach().clone()
        torch.testing.assert_close(head.head.bias.detach(), bias)
    torch.testing.assert_close(maps, by_hand)
