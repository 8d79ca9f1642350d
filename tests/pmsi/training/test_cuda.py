"""Training on a GPU: nothing waits for it, a mini-batch is one CUDA graph, and a run trains, saves and goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pmsi.recipe import Method
from pmsi.recipe.networks import NETWORKS, NetworkName
from pmsi.runtime.devices import open_fabric
from pmsi.runtime.session import Session
from pmsi.training.batches import plan_epoch
from pmsi.training.step import GraphedSteps
from tests.helpers.small_run import CHANGES, RECIPE, Watch, flatten_state, make_dataset, make_trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")

TOLERANCE = {"32": 1e-4, "bf16": 2e-2}  # of a graph's losses and weights: rounding, after ten mini-batches


@pytest.mark.usefixtures("sync_mode", "small_backbone")
@pytest.mark.parametrize("precision", ["32", "bf16", "fp16"])
@pytest.mark.parametrize("method", ["none", "cutmix", "mixup", "snapmix", "jigsaw", "rmg"])
def test_a_mini_batch_of_training_does_not_wait_for_the_gpu(tmp_path: Path, method: Method, precision: Any) -> None:
    """Mini-batch from stored images to the bar's losses, in every precision; its losses are close to the CPU's."""
    recipe = replace(RECIPE, augmentation=method, dropout=0.0, resize=68, crop=64)
    dataset, session = make_dataset(side=68), Session(open_fabric("cuda", precision))
    trainer = make_trainer(tmp_path / "gpu", recipe, dataset=dataset, session=session)
    on_cpu = make_trainer(tmp_path / "cpu", recipe, dataset=dataset)
    first, *others = plan_epoch(recipe, dataset.train.labels, seed=0, epoch=0)
    for one in (trainer, on_cpu):
        one.objective.train()
    torch.testing.assert_close(trainer.step(first).cpu(), on_cpu.step(first), rtol=0.05, atol=0.02)
    trainer.epoch.add(trainer.step(others[0]))
    torch.cuda.set_sync_debug_mode("error")
    for iteration in others:
        trainer.epoch.add(trainer.step(iteration))
        trainer.schedule.step()
        trainer.epoch.latest_losses()


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("precision", ["32", "bf16", "fp16"])
def test_a_run_on_a_gpu_trains_tests_saves_and_goes_on(tmp_path: Path, precision: Any) -> None:
    session = Session(open_fabric("cuda", precision))
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, RECIPE, session=session).run(Watch((2, 1)))
    trainer = make_trainer(tmp_path, RECIPE, session=session)
    assert len(trainer.history) == 1
    trainer.run(Watch())
    speed = trainer.history[-1]["speed"]
    assert speed["images"] == "cuda:0"
    assert 0 < speed["input_share"] < 1
    assert speed["memory_gb"] > 0


@pytest.mark.usefixtures("small_backbone")
def test_images_in_host_memory_train_as_those_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    histories = []
    for free in (2**40, 1):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, free))
        trainer = make_trainer(tmp_path / str(free), RECIPE, session=Session(open_fabric("cuda", "32")))
        trainer.run(Watch())
        histories.append(trainer.history)
    assert [history[0]["speed"]["images"] for history in histories] == ["cuda:0", "host memory"]
    for one, other in zip(*histories, strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-3)


@pytest.mark.usefixtures("small_backbone")
def test_a_batch_that_does_not_fit_a_gpu_is_one_line(tmp_path: Path) -> None:
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        recipe = replace(RECIPE, resize=512, crop=512, batch_size=256, epochs=1)
        dataset = make_dataset(side=512, train_images=256)
        trainer = make_trainer(tmp_path, recipe, dataset=dataset, session=Session(open_fabric("cuda", "32")))
        with pytest.raises(
            ValueError, match=r"256 images of 512 px a step do not fit .*; set --batch-size to \d+ or less"
        ):
            trainer.run(Watch())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


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
        found.append((torch.stack(losses).cpu(), flatten_state(trainer).cpu()))
        assert isinstance(trainer.steps, GraphedSteps) == graphs
    torch.testing.assert_close(found[0][0], found[1][0], rtol=TOLERANCE[precision], atol=TOLERANCE[precision])
    assert (found[0][1] - found[1][1]).norm() <= TOLERANCE[precision] * found[0][1].norm()


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
