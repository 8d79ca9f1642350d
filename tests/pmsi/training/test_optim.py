"""Learning rates, gradients, and the average of the weights, which is tested in their place."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from pmsi.data.storage import make_store
from pmsi.evaluation.accuracy import evaluate
from pmsi.models.registry import make_network, read_network
from pmsi.recipe import Recipe
from pmsi.runtime.checkpoints import load_checkpoint
from pmsi.training.optim import NEW_LAYERS, MovingAverage, fill_gradients, make_optimizer, make_schedule, start_momentum
from tests.helpers.small_run import (
    BATCHES,
    RECIPE,
    Watch,
    make_dataset,
    make_session,
    make_trainer,
    name_differences,
)


def test_the_average_is_that_of_its_definition() -> None:
    """Weights in double precision, and running statistics; a counter is copied. Bound: fp32 rounding of 30 steps."""
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = MovingAverage(network, 0.7)
    expected = {name: value.double().clone() for name, value in network.state_dict().items()}
    for step in range(1, 31):
        network(torch.randn(5, 2)).sum().backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape))
        leave = min(0.7, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            expected[name] = leave * expected[name] + (1 - leave) * value.double()
        average.update(network, step=step)
    found = average.network.state_dict()
    for name, value in expected.items():
        wanted = torch.tensor(30.0).double() if name == "1.num_batches_tracked" else value
        torch.testing.assert_close(found[name].double(), wanted, rtol=1e-5, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in average.network.parameters())


@pytest.mark.usefixtures("small_backbone")
def test_the_average_is_tested_and_the_weights_are_trained_as_ever(tmp_path: Path) -> None:
    plain = make_trainer(tmp_path / "plain")
    plain.run(Watch())
    recipe = replace(RECIPE, ema_decay=0.9)
    averaged = make_trainer(tmp_path / "averaged", recipe)
    states = []

    class Copy(Watch):
        def on_batch(self, *what: Any) -> None:
            super().on_batch(*what)
            states.append({name: value.clone() for name, value in averaged.network.state_dict().items()})

    initial = {name: value.clone() for name, value in averaged.network.state_dict().items()}
    found = averaged.run(Copy())
    assert not name_differences(plain.network.state_dict(), averaged.network.state_dict())
    oracle = MovingAverage(make_network(recipe, 3), 0.9)
    oracle.network.load_state_dict(initial)
    for step, state in enumerate(states, 1):
        now = make_network(recipe, 3)
        now.load_state_dict(state)
        oracle.update(now, step=step)
    assert len(states) == 2 * BATCHES
    assert not name_differences(oracle.network.state_dict(), averaged.tested.state_dict())
    store = make_store(make_dataset().test, torch.device("cpu"))
    path = tmp_path / "averaged" / "last.ckpt"
    checkpoint = load_checkpoint(path)
    again = evaluate(read_network(checkpoint, recipe, 3, path), store, recipe, make_session())
    assert again.mix_predictions.tolist() == found.mix_predictions.tolist()
    assert name_differences(read_network(checkpoint, recipe, 3, path).state_dict(), averaged.network.state_dict())


@pytest.mark.usefixtures("small_backbone")
def test_an_averaged_run_goes_on_where_it_was(tmp_path: Path) -> None:
    recipe = replace(RECIPE, ema_decay=0.9, label_smoothing=0.1)
    make_trainer(tmp_path / "whole", recipe).run(Watch())
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path / "parts", recipe).run(Watch((2, 2)))
    make_trainer(tmp_path / "parts", recipe).run(Watch())
    whole, parts = (load_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "parts"))
    assert "average" in whole
    assert name_differences(whole, parts) == []


def rate_epochs(recipe: Recipe, count: int) -> list[list[float]]:
    """Rates of (backbone, new) before each mini-batch of the whole run and after the last."""
    a, b = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = SGD([{"params": [a], "lr": recipe.lr_backbone}, {"params": [b], "lr": recipe.lr_new}])
    schedule = make_schedule(recipe, optimizer, count)
    rates = [[group["lr"] for group in optimizer.param_groups]]
    for _ in range(recipe.epochs * (count // recipe.batch_size)):
        optimizer.step()
        schedule.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    return rates


def test_cosine_falls_to_zero_in_both_groups() -> None:
    rates = rate_epochs(replace(RECIPE, lr_backbone=1e-4, lr_new=1e-3, epochs=4), 103)
    for group, top in enumerate((1e-4, 1e-3)):
        assert rates[0][group] == top
        assert rates[50][group] == pytest.approx(top / 2)
        assert rates[100][group] == pytest.approx(0, abs=1e-12)


def test_released_rate_hardly_falls() -> None:
    """Its period counts images (5,994 of CUB), its steps batches (187 an epoch): the ratio of any number of epochs."""
    rates = rate_epochs(replace(RECIPE, schedule="released", batch_size=32, epochs=2, lr_new=3e-3), 5994)
    ratio = (1 + math.cos(math.pi * 187 / 5994)) / 2
    assert ratio == pytest.approx(0.9976, abs=5e-5)
    assert rates[-1][1] / 3e-3 == pytest.approx(ratio)
    assert rates[-1][0] / RECIPE.lr_backbone == pytest.approx(ratio)


def test_one_cycle_peaks_at_the_recipes_rates() -> None:
    recipe = replace(RECIPE, schedule="onecycle", warmup=0.25, epochs=4, lr_backbone=1e-3, lr_new=1e-2)
    for group, rates in enumerate(zip(*rate_epochs(recipe, 400), strict=True)):
        top = (1e-3, 1e-2)[group]
        assert max(rates) == pytest.approx(top, rel=1e-3)
        assert rates.index(max(rates)) == pytest.approx(100, abs=1)
        assert rates[0] == pytest.approx(top / 25)
        assert rates[-1] < top / 1e4


@pytest.mark.parametrize("batches", range(1, 9))
def test_one_cycle_of_a_few_steps(batches: int) -> None:
    """Where a quarter of all steps is one."""
    recipe = replace(RECIPE, schedule="onecycle", warmup=0.25, epochs=1)
    rates = rate_epochs(recipe, batches * recipe.batch_size)
    assert len(rates) == batches + 1
    assert max(rates) == pytest.approx([recipe.lr_backbone, recipe.lr_new], rel=0.1)


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
def test_rates_are_stepped_with_every_batch(tmp_path: Path, schedule: Any) -> None:
    trainer = make_trainer(tmp_path, replace(RECIPE, schedule=schedule, epochs=2))
    groups = trainer.parts["optimizer"].param_groups
    wanted = [[id(p) for p in group] for group in trainer.network.parameter_groups()]
    assert [[id(p) for p in group["params"]] for group in groups] == wanted
    assert [group["momentum"] for group in groups] == [0.9, 0.9]
    assert [group["weight_decay"] for group in groups] == [5e-4, 5e-4]
    trainer.run(Watch())
    rates = rate_epochs(trainer.recipe, 12)
    assert [record["lr"] for record in trainer.history] == [pytest.approx(rates[k]) for k in (BATCHES, 2 * BATCHES)]


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
def test_rates_of_the_backbone_fall_with_depth(tmp_path: Path, schedule: Any) -> None:
    """Level by level, at every mini-batch; each parameter is in one group, and the new layers keep their place."""
    recipe = replace(RECIPE, layer_decay=0.5, schedule=schedule, lr_backbone=1.6e-3)
    trainer = make_trainer(tmp_path, recipe)
    optimizer, network = trainer.parts["optimizer"], trainer.network
    stages = [list(stage.parameters()) for stage in network.backbone.stages]
    wanted = [stages[4], network.parameter_groups()[1], stages[3], stages[2], stages[1], stages[0]]
    groups = optimizer.param_groups
    assert [[id(p) for p in group["params"]] for group in groups] == [[id(p) for p in group] for group in wanted]
    assert NEW_LAYERS == 1
    plain = make_optimizer(replace(recipe, layer_decay=1.0), network)
    schedule = make_schedule(recipe, plain, 12)
    for _ in range(2):
        backbone, new = (group["lr"] for group in plain.param_groups)
        shares = [group["lr"] / rate for group, rate in zip(groups, (backbone, new, *[backbone] * 4), strict=True)]
        assert shares == pytest.approx([1, 1, 1 / 2, 1 / 4, 1 / 8, 1 / 16])
        for one, steps in ((optimizer, trainer.schedule), (plain, schedule)):
            one.step()
            steps.step()


@pytest.mark.usefixtures("small_backbone")
def test_adamw_is_torchs_with_the_recipes_rates_and_decay() -> None:
    recipe = replace(RECIPE, optimizer="adamw", weight_decay=0.03)
    network = make_network(recipe, 3)
    optimizer = make_optimizer(recipe, network)
    assert isinstance(optimizer, AdamW)
    assert [group["lr"] for group in optimizer.param_groups] == [recipe.lr_backbone, recipe.lr_new]
    assert [(group["weight_decay"], group["fused"]) for group in optimizer.param_groups] == [(0.03, True)] * 2
    assert make_optimizer(replace(recipe, zero_idle_grads=False), network).param_groups[0]["fused"] is False
    assert isinstance(make_optimizer(RECIPE, network), SGD)


@pytest.mark.usefixtures("small_backbone")
def test_a_run_of_new_settings_goes_on_where_it_was(tmp_path: Path) -> None:
    """Stopped among its mosaics, and where they end: after four of six mini-batches."""
    recipe = replace(
        RECIPE, optimizer="adamw", layer_decay=0.7, mosaic_until=0.6, concat_recursions=1, distill_weight=1.0
    )
    make_trainer(tmp_path / "whole", recipe).run(Watch())
    for stop in ((1, 2), (2, 1)):
        with pytest.raises(KeyboardInterrupt):
            make_trainer(tmp_path / "parts", recipe).run(Watch(stop))
    make_trainer(tmp_path / "parts", recipe).run(Watch())
    whole, parts = (load_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "parts"))
    assert {"exp_avg", "exp_avg_sq", "step"} <= whole["optimizer"]["state"][0].keys()
    assert name_differences(whole, parts) == []


def test_gradients_that_no_pass_reaches_are_zero() -> None:
    network = nn.ModuleList([nn.Linear(1, 1, bias=False) for _ in range(3)])
    network[1].requires_grad_(requires_grad=False)
    optimizer = SGD(network.parameters(), lr=1.0)
    network[0](torch.ones(1)).sum().backward()
    fill_gradients(optimizer)
    gradients = [parameter.grad for parameter in network.parameters()]
    assert gradients == [torch.ones(1, 1), None, torch.zeros(1, 1)]


@pytest.mark.usefixtures("poison")
def test_a_first_step_that_overflows_leaves_no_momentum() -> None:
    """As GradScaler says it to a fused optimizer: nothing moves, and the next step is a first one."""
    plain, scaled = (nn.Linear(3, 2) for _ in range(2))
    scaled.load_state_dict(plain.state_dict())
    optimizers = [SGD(one.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, fused=True) for one in (plain, scaled)]
    start_momentum(optimizers[1])
    before = [parameter.clone() for parameter in scaled.parameters()]
    for one in (plain, scaled):
        one(torch.ones(1, 3)).sum().backward()
    optimizers[1].grad_scale, optimizers[1].found_inf = torch.tensor(1.0), torch.tensor(1.0)  # type: ignore[attr-defined]
    optimizers[1].step()
    for was, parameter in zip(before, scaled.parameters(), strict=True):
        assert torch.equal(was, parameter)
    optimizers[1].found_inf = torch.tensor(0.0)  # type: ignore[attr-defined]
    for optimizer in optimizers:
        optimizer.step()
    for wanted, found in zip(plain.parameters(), scaled.parameters(), strict=True):
        assert torch.equal(wanted, found)
