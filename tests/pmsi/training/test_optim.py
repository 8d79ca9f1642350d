"""The average of the weights, which is tested in place of the weights themselves, and survives an interruption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pmsi.data.storage import make_store
from pmsi.evaluation.accuracy import evaluate
from pmsi.models.registry import make_network, read_network
from pmsi.runtime.checkpoints import load_checkpoint
from pmsi.training.optim import MovingAverage
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
    checkpoint = load_checkpoint(tmp_path / "averaged" / "last.ckpt")
    again = evaluate(read_network(checkpoint, recipe, 3), store, recipe, make_session())
    assert again.mix_predictions.tolist() == found.mix_predictions.tolist()
    assert name_differences(read_network(checkpoint, recipe, 3).state_dict(), averaged.network.state_dict())


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
