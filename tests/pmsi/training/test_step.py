"""Training steps captured as a graph: the same as eager ones, with fresh inputs, rates and dropout in every replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pmsi.recipe import METHODS, Recipe
from pmsi.recipe.networks import NETWORKS, NetworkName
from pmsi.runtime.devices import open_fabric
from pmsi.runtime.session import Session
from pmsi.training import step
from pmsi.training.batches import plan_epoch
from pmsi.training.step import EAGER_STEPS, GraphedSteps
from pmsi.training.trainer import Trainer
from tests.helpers.small_run import RECIPE, Watch, make_dataset, make_session, make_trainer

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
Call = Callable[[], None]
# Every augmentation as published, and RMG with all that candidates change in the step.
CHANGES: list[dict[str, Any]] = [
    *({"augmentation": method} for method in METHODS),
    {
        "optimizer": "adamw",
        "layer_decay": 0.7,
        "mosaic_until": 0.5,
        "concat_recursions": 1,
        "distill_weight": 1.0,
        "label_smoothing": 0.1,
    },
]
TOLERANCE = {"32": 1e-4, "bf16": 2e-2}  # of losses: rounding, after six mini-batches


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
    trainer, recorder = make_trainer(folder, recipe), Recorder()
    trainer.steps = GraphedSteps(trainer.steps, recorder)  # type: ignore[arg-type]
    return trainer, recorder


def weigh(trainer: Trainer) -> Tensor:
    return torch.cat([value.detach().flatten().double() for value in trainer.network.state_dict().values()])


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
    wanted, found = weigh(eager), weigh(graphed)
    assert (wanted - found).norm() <= 1e-4 * wanted.norm()
    if recipe.optimizer == "sgd":  # AdamW moves biases below a batch norm at full rate, by mere rounding
        torch.testing.assert_close(wanted, found, rtol=1e-4, atol=1e-5)
    assert all(isinstance(group["lr"], float) for group in graphed.optimizer.param_groups)


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


@ON_GPU
@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("changes", CHANGES)
def test_a_graph_on_a_gpu_trains_as_eager_steps_do(tmp_path: Path, changes: dict[str, Any], precision: Any) -> None:
    """MobileNetV2, whose backbone thaws after one epoch; every draw of dropout is that of the eager run."""
    recipe = replace(RECIPE, freeze_epochs=1, epochs=2, lr_backbone=1e-4, lr_new=1e-4, **changes)
    recipe = replace(recipe, resize=68, crop=64, batch_size=8)
    dataset, found = make_dataset(side=68, train_images=40), []
    for graphs in (False, True):
        session = Session(open_fabric("cuda", precision), graphs=graphs)
        trainer = make_trainer(tmp_path / str(graphs), recipe, dataset=dataset, session=session)
        losses = list[Tensor]()
        trainer.objective.train()
        for epoch in range(2):
            trainer.network.backbone.requires_grad_(epoch > 0)
            for batch in plan_epoch(recipe, dataset.train.labels, seed=0, epoch=epoch):
                torch.manual_seed(len(losses))
                losses.append(trainer.step(batch))
                trainer.schedule.step()
        found.append((torch.stack(losses).cpu(), weigh(trainer).cpu()))
        assert isinstance(trainer.steps, GraphedSteps) == graphs
    torch.testing.assert_close(found[0][0], found[1][0], rtol=TOLERANCE[precision], atol=TOLERANCE[precision])
    assert (found[0][1] - found[1][1]).norm() <= TOLERANCE[precision] * found[0][1].norm()


@ON_GPU
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_captured(tmp_path: Path, name: NetworkName) -> None:
    facts = NETWORKS[name]
    recipe = replace(
        RECIPE,
        network=name,
        augmentation="none",
        progressive=facts.outputs == "stages",
        interaction=facts.interacts,
        classes_per_batch=2 if facts.compares_images == "classes" else None,
        resize=68,
        crop=64,
        batch_size=8,
    )
    dataset = make_dataset(side=68, train_images=48)
    trainer = make_trainer(tmp_path, recipe, dataset=dataset, session=Session(open_fabric("cuda", "32")))
    trainer.objective.train()
    losses = [trainer.step(batch) for batch in plan_epoch(recipe, dataset.train.labels, seed=0, epoch=0)]
    assert isinstance(trainer.steps, GraphedSteps)
    assert trainer.steps.replay is not None
    assert torch.stack(losses).isfinite().all()
