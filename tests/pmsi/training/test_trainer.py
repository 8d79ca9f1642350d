"""The trainer: what each optimiser step moves, at which rate, and that interruption leaves no trace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD

from mosaicaug import apply
from pmsi.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from pmsi.evaluation.calibration import fit_temperature
from pmsi.models.base import Logits
from pmsi.recipe import Method, Recipe
from pmsi.runtime.checkpoints import load_checkpoint
from pmsi.training.batches import BatchPlan, plan_epoch
from pmsi.training.callbacks import Silent
from pmsi.training.trainer import Trainer
from tests.helpers.small_run import BATCHES, RECIPE, Watch, make_dataset, make_trainer, name_differences

Snapshots = list[dict[str, Tensor]]
STEPS = 4  # of one mini-batch


def plan_batch(recipe: Recipe) -> BatchPlan:
    return next(plan_epoch(recipe, make_dataset().train.labels, seed=0, epoch=0))


def record_gradients(trainer: Trainer) -> Snapshots:
    """At every optimiser step from now on, the gradients that are not all zero."""
    found: Snapshots = []

    def record(*_: object) -> None:
        named = trainer.network.named_parameters()
        found.append({name: p.grad.clone() for name, p in named if p.grad is not None and p.grad.any()})

    trainer.parts["optimizer"].register_step_pre_hook(record)
    return found


def record_weights(trainer: Trainer) -> tuple[Snapshots, Snapshots]:
    """At every optimiser step from now on, weights before and after it, and momenta (key "m") before it."""
    before: Snapshots = []
    after: Snapshots = []
    optimizer = trainer.parts["optimizer"]

    def copy() -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in trainer.network.named_parameters()}

    def enter(*_: object) -> None:
        state = {p: optimizer.state[p].get("momentum_buffer") for p in trainer.network.parameters()}
        momenta = {f"m {n}": state[p].clone() for n, p in trainer.network.named_parameters() if state[p] is not None}
        before.append(copy() | momenta)

    optimizer.register_step_pre_hook(enter)
    optimizer.register_step_post_hook(lambda *_: after.append(copy()))
    return before, after


def list_heads(names: Iterator[str]) -> set[str]:
    return {name for name in names if "classifier" in name}


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("method", ["none", "cutmix", "mixup", "snapmix", "jigsaw", "rmg"])
def test_four_steps_for_every_batch(tmp_path: Path, method: Method) -> None:
    trainer = make_trainer(tmp_path, replace(RECIPE, augmentation=method, epochs=1))
    steps = record_gradients(trainer)
    trainer.run(Watch())
    assert len(steps) == STEPS * BATCHES
    assert len(trainer.history[0]["losses"]) == STEPS


@pytest.mark.usefixtures("small_backbone")
def test_phases_have_their_own_input_output_and_weight(tmp_path: Path) -> None:
    recipe = replace(RECIPE, dropout=0.0, concat_weight=2.0)
    trainer = make_trainer(tmp_path, recipe)
    inputs: list[Tensor] = []
    outputs: list[Logits] = []
    trainer.network.register_forward_pre_hook(lambda _, given: inputs.append(given[0].clone()))
    trainer.network.register_forward_hook(lambda *given: outputs.append(given[-1]))
    gradients = record_gradients(trainer)
    batch = plan_batch(recipe)
    losses = trainer.step(batch)
    labels = make_dataset().train.labels[batch.index]
    for k, draw in enumerate(batch.draws):
        images = make_dataset().train.images
        shown = apply(images, draw.plan, index=batch.index, window=batch.window, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        assert torch.equal(inputs[k], shown)
        logits = outputs[k].concat if k == 3 else outputs[k].stages[k]
        weight = 2.0 if k == 3 else 1.0
        torch.testing.assert_close(losses[k], weight * F.cross_entropy(logits, labels))
        name = "concat_classifier.4.bias" if k == 3 else f"classifiers.{k}.4.bias"
        by_hand = weight * (logits.softmax(1) - F.one_hot(labels, 3)).mean(0).detach()
        torch.testing.assert_close(gradients[k][name], by_hand)


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("method", ["rmg", "cutmix"])
def test_phases_may_come_from_outside(tmp_path: Path, method: Method) -> None:
    recipe = replace(RECIPE, augmentation=method)
    inside, outside = (make_trainer(tmp_path / name, recipe) for name in ("inside", "outside"))
    train, batch = make_dataset().train, plan_batch(recipe)
    normalise: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "memory_format": torch.channels_last}
    inputs = [
        (
            apply(train.images, draw.plan, index=batch.index, window=batch.window, **normalise),
            draw.targets(train.labels[batch.index], None),
        )
        for draw in batch.draws
    ]
    torch.manual_seed(1)  # dropout
    losses = inside.step(batch)
    torch.manual_seed(1)
    assert torch.equal(outside.step_phases(inputs), losses)
    assert name_differences(inside.network.state_dict(), outside.network.state_dict()) == []
    for wrong in (inputs[:-1], inputs + inputs[:1]):
        with pytest.raises(ValueError, match="argument"):
            outside.step_phases(wrong)


@pytest.mark.usefixtures("small_backbone")
def test_without_progression_there_is_one_step_of_weight_1(tmp_path: Path) -> None:
    recipe = replace(RECIPE, augmentation="none", progressive=False, dropout=0.0)
    trainer = make_trainer(tmp_path, recipe)
    outputs: list[Logits] = []
    trainer.network.register_forward_hook(lambda *given: outputs.append(given[-1]))
    steps = record_gradients(trainer)
    batch = plan_batch(recipe)
    losses = trainer.step(batch)
    labels = make_dataset().train.labels[batch.index]
    torch.testing.assert_close(losses, F.cross_entropy(outputs[0].concat, labels)[None])
    assert len(steps) == 1
    assert not any(name.startswith("classifiers") for name in steps[0])


@pytest.mark.parametrize("idle", [True, False])
def test_gradients_with_interaction_reach_all_but_other_classifiers(tmp_path: Path, idle: bool) -> None:
    """On MobileNetV2 itself, at 64 px so that no map is a single pixel before the last."""
    recipe = replace(RECIPE, resize=68, crop=64, zero_idle_grads=idle)
    trainer = make_trainer(tmp_path, recipe, dataset=make_dataset(side=68))
    steps = record_gradients(trainer)
    trainer.step(plan_batch(recipe))
    backbone = {f"backbone.{name}" for name, _ in trainer.network.backbone.named_parameters()}
    heads = list_heads(name for name, _ in trainer.network.named_parameters())
    assert backbone <= steps[0].keys()
    for k, own in enumerate(("classifiers.0.", "classifiers.1.", "classifiers.2.", "concat_classifier.")):
        assert list_heads(iter(steps[k])) == {name for name in heads if name.startswith(own)}
        assert {n for n, _ in trainer.network.named_parameters() if n.startswith(("smooth", "mlp"))} <= steps[k].keys()


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("idle", [True, False])
def test_gradients_without_interaction_stop_at_the_phases_stage(tmp_path: Path, idle: bool) -> None:
    recipe = replace(RECIPE, interaction=False, zero_idle_grads=idle)
    trainer = make_trainer(tmp_path, recipe)
    steps = record_gradients(trainer)
    trainer.step(plan_batch(recipe))
    for k in range(3):
        reached = {name for name in steps[k] if name.startswith("backbone")}
        assert {name.split(".")[2] for name in reached} == {str(stage) for stage in range(3 + k)}
        assert {name.split(".")[1] for name in steps[k] if name.startswith("smooth")} == {str(k)}
    assert len({name.split(".")[2] for name in steps[3] if name.startswith("backbone")}) == 5


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("idle", [True, False])
def test_idle_classifiers_keep_decay_and_momentum_or_stay(tmp_path: Path, idle: bool) -> None:
    """From the very first step; 1e-6 relative is a rounding or two of float32."""
    recipe = replace(RECIPE, zero_idle_grads=idle, weight_decay=0.1, epochs=1, schedule="released", lr_new=0.01)
    trainer = make_trainer(tmp_path, recipe)
    before, after = record_weights(trainer)
    heads = list_heads(name for name, _ in trainer.network.named_parameters())
    rates: list[float] = []
    optimizer: SGD = trainer.parts["optimizer"]
    optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[1]["lr"]))
    trainer.run(Watch())
    assert len(before) == STEPS * BATCHES
    for k, (old, new, lr) in enumerate(zip(before, after, rates, strict=True)):
        own = "concat_classifier" if k % STEPS == 3 else f"classifiers.{k % STEPS}"
        for name in heads:
            if name.startswith(own):
                continue
            if idle:
                momentum = 0.9 * old[f"m {name}"] if f"m {name}" in old else torch.zeros(())
                wanted = old[name] - lr * (momentum + 0.1 * old[name])
                torch.testing.assert_close(new[name], wanted, rtol=1e-6, atol=1e-7)
                assert not old[name].any() or not torch.equal(new[name], old[name])
            else:
                assert torch.equal(new[name], old[name])


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("idle", [True, False])
def test_frozen_backbone_keeps_its_weights_and_moves_its_statistics(tmp_path: Path, idle: bool) -> None:
    recipe = replace(RECIPE, freeze_epochs=1, zero_idle_grads=idle)
    trainer = make_trainer(tmp_path, recipe)
    backbone = trainer.network.backbone
    start = {name: value.clone() for name, value in backbone.state_dict().items()}
    head = trainer.network.get_parameter("concat_classifier.1.weight").detach().clone()
    with pytest.raises(KeyboardInterrupt):
        trainer.run(Watch((2, 1)))
    middle = load_checkpoint(tmp_path / "last.ckpt")["model"]
    for name, value in start.items():
        moved = not torch.equal(middle[f"backbone.{name}"], value)
        assert moved == any(word in name for word in ("running", "tracked")), name
    assert not torch.equal(middle["concat_classifier.1.weight"], head)
    make_trainer(tmp_path, recipe).run(Watch())
    end = load_checkpoint(tmp_path / "last.ckpt")["model"]
    assert all(not torch.equal(end[f"backbone.{name}"], start[name]) for name, _ in backbone.named_parameters())


@pytest.mark.usefixtures("small_backbone")
def test_epochs_between_tests_have_no_accuracy_and_the_last_one_has(tmp_path: Path) -> None:
    often, seldom = (
        make_trainer(tmp_path / str(every), replace(RECIPE, epochs=5, test_every=every)) for every in (1, 2)
    )
    every_epoch, at_the_end = often.run(), seldom.run()
    assert [record["mix"] is not None for record in seldom.history] == [False, True, False, True, True]
    assert [record["stages"] is None for record in seldom.history] == [True, False, True, False, False]
    for known, record in zip(often.history, seldom.history, strict=True):
        assert record["losses"] == known["losses"]
        assert record["mix"] in (None, known["mix"])
    assert torch.equal(every_epoch.mix_predictions, at_the_end.mix_predictions)


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize(("seconds", "kept"), [(60.0, [0, 2, 2, 4]), (0.0, [1, 2, 3, 4])])
def test_short_epochs_that_are_not_tested_are_kept_with_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, kept: list[int]
) -> None:
    monkeypatch.setattr("pmsi.training.trainer.SAVE_SECONDS", seconds)
    lines: list[int] = []

    class Look(Silent):
        def on_epoch(self, record: dict[str, Any]) -> None:  # noqa: ARG002 - the callback's
            path = tmp_path / "metrics.jsonl"
            lines.append(len(path.read_text().splitlines()) if path.exists() else 0)

    trainer = make_trainer(tmp_path, replace(RECIPE, epochs=4, test_every=2))
    trainer.run(Look())
    assert lines == kept
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert written == json.loads(json.dumps(trainer.history))


@pytest.mark.usefixtures("small_backbone")
def test_a_run_that_is_done_knows_its_temperature_and_is_only_tested_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path).run(Watch((2, 1)))
    assert load_checkpoint(tmp_path / "last.ckpt")["about"].get("temperature") is None
    trainer = make_trainer(tmp_path)
    assert len(trainer.history) == 1
    found = trainer.run()
    wanted = fit_temperature(found.logits, trainer.test.labels)
    assert load_checkpoint(tmp_path / "last.ckpt")["about"]["temperature"] == wanted
    again = make_trainer(tmp_path)
    assert again.about["temperature"] == wanted
    assert again.history == trainer.history
    assert torch.equal(again.run().logits, found.logits)


def test_without_fp16_nothing_has_a_momentum_before_its_first_step(tmp_path: Path) -> None:
    assert make_trainer(tmp_path).parts["optimizer"].state_dict()["state"] == {}
