"""A run that was stopped and goes on leaves no trace of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import RECIPE, Watch, make_dataset, make_trainer, name_differences, read_folder

from pmsi.config import Method, Recipe
from pmsi.files import load_checkpoint

# Last maps of 2 x 2: a class activation map of one pixel says nothing.
WIDE = replace(RECIPE, resize=68, crop=64)


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("freeze_epochs", [0, 1, 2])
@pytest.mark.parametrize("idle", [True, False])
@pytest.mark.parametrize("method", ["rmg", "snapmix", "mixup"])
def test_resumed_equals_uninterrupted(tmp_path: Path, method: Method, freeze_epochs: int, idle: bool) -> None:
    recipe = replace(WIDE, augmentation=method, freeze_epochs=freeze_epochs, epochs=3, zero_idle_grads=idle)
    check_resume(tmp_path, recipe, [(2, 2), (2, 3)])


def test_resumed_mobilenet_equals_uninterrupted(tmp_path: Path) -> None:
    check_resume(tmp_path, replace(WIDE, freeze_epochs=1, epochs=2), [(2, 1)])


def check_resume(tmp_path: Path, recipe: Recipe, stops: list[tuple[int, int]]) -> None:
    """Bit for bit on the CPU: weights, statistics, optimisers, schedule and history."""
    dataset = make_dataset(side=recipe.resize)
    make_trainer(tmp_path / "whole", recipe, dataset=dataset).run(Watch())
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            make_trainer(tmp_path / "parts", recipe, dataset=dataset).run(Watch(stop))
        torch.rand(7)  # the process goes on elsewhere
    trainer = make_trainer(tmp_path / "parts", recipe, dataset=dataset)
    assert 0 < len(trainer.history) < recipe.epochs
    trainer.run(Watch())
    whole, parts = (load_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "parts"))
    assert name_differences(whole, parts) == []
    assert not name_differences(parts["model"], {k: v.contiguous() for k, v in trainer.network.state_dict().items()})


@pytest.mark.usefixtures("small_backbone")
def test_finished_run_is_only_tested_again(tmp_path: Path) -> None:
    first = make_trainer(tmp_path).run(Watch())
    watch = Watch()
    again = make_trainer(tmp_path).run(watch)
    assert watch.batches == 0
    assert (again.concat, again.mix, again.stages) == (first.concat, first.mix, first.stages)
    assert torch.equal(again.mix_predictions, first.mix_predictions)


@pytest.mark.usefixtures("small_backbone")
def test_seed_decides_the_run(tmp_path: Path) -> None:
    states: list[dict[str, Any]] = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(states) + 50)
        make_trainer(tmp_path / name, replace(RECIPE, epochs=1), seed=seed).run(Watch())
        states.append(load_checkpoint(tmp_path / name / "last.ckpt"))
    assert name_differences(states[0], states[1]) == []
    weights = [name for name, _ in make_trainer(tmp_path / "d").network.named_parameters()]
    assert {f".model.{name}" for name in weights} <= {*name_differences(states[0], states[2])}


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("field", ["dropout", "epochs", "augmentation", "lr_new"])
def test_checkpoint_of_another_recipe_is_refused_and_kept(tmp_path: Path, field: str) -> None:
    recipe = replace(RECIPE, epochs=1)
    make_trainer(tmp_path, recipe).run(Watch())
    before = read_folder(tmp_path)
    other: Any = {"dropout": 0.25, "epochs": 7, "augmentation": "none", "lr_new": 0.3}[field]
    with pytest.raises(ValueError, match=rf"belongs to another run: recipe.{field} is .* there, .*{other}.* asked"):
        make_trainer(tmp_path, replace(recipe, **{field: other}))
    assert read_folder(tmp_path) == before
