"""Training steps captured as a graph: the same as eager ones, with fresh inputs, rates and dropout in every replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from pmsi.recipe import Recipe
from pmsi.runtime.session import Session
from pmsi.training import step
from pmsi.training.batches import plan_epoch
from pmsi.training.inputs import PhaseInput
from pmsi.training.step import EAGER_STEPS, GraphedSteps
from pmsi.training.trainer import Trainer
from tests.helpers.small_run import CHANGES, RECIPE, Watch, flatten_state, make_session, make_trainer

Call = Callable[[], None]


class Recorder:
    """Stands in for a CUDA graph on a CPU: a replay is the call, on the memory that it was captured with."""

    def __init__(self) -> None:
        self.captures, self.replays = 0, 0

    def __call__(self, call: Call) -> Call:
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            call()

        return replay


def make_graphed(folder: Path, recipe: Recipe) -> tuple[Trainer, Recorder]:
    """Trainer that makes its steps as on a GPU, before it loads a checkpoint."""
    recorder = Recorder()
    with patch("pmsi.training.trainer.make_steps", lambda steps, _: GraphedSteps(steps, recorder)):
        return make_trainer(folder, recipe), recorder


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("changes", CHANGES)
def test_a_replayed_run_is_the_eager_run(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Six mini-batches, the backbone thawing after three, rates falling: losses, weights and checkpoint."""
    recipe = replace(RECIPE, freeze_epochs=1, epochs=3, **changes)
    eager = make_trainer(tmp_path / "eager", recipe)
    graphed, recorder = make_graphed(tmp_path / "graphed", recipe)
    for trainer in (eager, graphed):
        trainer.run(Watch())
    assert (recorder.captures, recorder.replays) == (2, 9 - 2 * EAGER_STEPS)
    for one, other in zip(eager.history, graphed.history, strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-5)
    wanted, found = flatten_state(eager), flatten_state(graphed)
    assert (wanted - found).norm() <= 1e-4 * wanted.norm()
    if recipe.optimizer == "sgd":  # AdamW moves biases below a batch norm at full rate, by mere rounding
        torch.testing.assert_close(wanted, found, rtol=1e-4, atol=1e-5)
    assert all(isinstance(group["lr"], float) for group in graphed.optimizer.param_groups)


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_a_captured_update_reads_memory_alone(kind: Any) -> None:
    """AdamW counts its steps there too; between captures the optimizer keeps plain values."""
    layer = nn.Linear(2, 1)
    optimizer = kind(layer.parameters(), lr=0.1, fused=True)
    group = optimizer.param_groups[0]
    seen: list[tuple[bool, bool]] = []

    def train(inputs: Iterable[PhaseInput]) -> Tensor:
        seen.append((group.get("capturable", False), isinstance(group["lr"], Tensor)))
        for images, _ in inputs:
            optimizer.zero_grad()
            layer(images).sum().backward()
            optimizer.step()
        return torch.zeros(1)

    steps: Any = train
    steps.optimizer = optimizer
    graphed, captured = GraphedSteps(steps, Recorder()), (kind is AdamW, True)
    for _ in range(EAGER_STEPS + 2):
        graphed([(torch.ones(3, 2), torch.zeros(3, dtype=torch.int64))])
        assert (group.get("capturable", False), group["lr"]) == (False, 0.1)
    assert seen == [(False, False)] * EAGER_STEPS + [captured] * 2


@pytest.mark.usefixtures("small_backbone")
def test_a_replayed_run_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    """Loading makes other groups of the optimizer; replays follow their rates."""
    recipe = replace(RECIPE, epochs=4)
    whole, _ = make_graphed(tmp_path / "whole", recipe)
    whole.run(Watch())
    with pytest.raises(KeyboardInterrupt):
        make_graphed(tmp_path / "parts", recipe)[0].run(Watch((3, 1)))
    parts, recorder = make_graphed(tmp_path / "parts", recipe)
    assert len(parts.history) == 2
    parts.run(Watch())
    assert isinstance(parts.steps, GraphedSteps)
    assert isinstance(whole.steps, GraphedSteps)
    assert recorder.replays == 6 - EAGER_STEPS
    assert [float(rate) for rate in parts.steps.rates] == [float(rate) for rate in whole.steps.rates]  # of the last
    torch.testing.assert_close(flatten_state(whole), flatten_state(parts), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("small_backbone")
def test_a_captured_step_refuses_other_inputs(tmp_path: Path) -> None:
    trainer, _ = make_graphed(tmp_path, RECIPE)
    batches = list(plan_epoch(RECIPE, trainer.train.labels, seed=0, epoch=0))
    for batch in batches:
        trainer.step(batch)
    images, labels = torch.rand(3, 3, 32, 32), torch.arange(3)
    with pytest.raises(
        ValueError, match=r"captured for inputs of .*\(4, 3, 32, 32\).*got .*\(3, 3, 32, 32\).*graphs=False"
    ):
        trainer.step_phases([(images, labels)] * 4)


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize(
    ("changes", "session", "fits"),
    [
        ({}, {}, True),
        ({}, {"graphs": False}, False),
        ({}, {"compile": True}, False),
        ({}, {"precision": "16-mixed"}, False),
        ({"zero_idle_grads": False}, {}, False),
    ],
)
def test_what_is_captured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], session: dict[str, Any], fits: bool
) -> None:
    """As on a GPU, of which a CPU pretends to be one."""
    trainer = make_trainer(tmp_path, replace(RECIPE, **changes))
    eager = trainer.steps
    assert isinstance(eager, step.PhaseSteps)
    precision = session.pop("precision", "32-true")
    made = Session(trainer.fabric, **session)
    monkeypatch.setattr(type(trainer.fabric), "device", property(lambda _: torch.device("cuda")))
    monkeypatch.setattr(trainer.fabric.strategy.precision, "precision", precision)
    assert isinstance(step.make_steps(eager, made), GraphedSteps) == fits


def test_a_cpu_trains_as_it_did(tmp_path: Path) -> None:
    assert isinstance(make_trainer(tmp_path, RECIPE, session=make_session()).steps, step.PhaseSteps)
