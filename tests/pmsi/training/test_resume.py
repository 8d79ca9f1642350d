"""A run that was stopped and goes on leaves no trace of it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pmsi.recipe import Method, Recipe
from pmsi.runtime.checkpoints import load_checkpoint, previous_path, save_checkpoint
from pmsi.runtime.signals import Stopped
from pmsi.training import trainer as trainer_module
from tests.helpers.small_run import RECIPE, Watch, make_dataset, make_trainer, name_differences, read_folder

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
@pytest.mark.parametrize(("pause", "kept"), [(3600.0, [0, 2, 2]), (0.0, [1, 2, 3])])
def test_short_untested_epoch_is_kept_with_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause: float, kept: list[int]
) -> None:
    monkeypatch.setattr(trainer_module, "SAVE_SECONDS", pause)
    recipe, found = replace(RECIPE, epochs=4, test_every=2), []

    class Look(Watch):
        def on_epoch(self, record: Any) -> None:
            file = tmp_path / "last.ckpt"
            found.append(len(load_checkpoint(file)["history"]) if file.exists() else 0)
            if record["epoch"] == 3:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):  # what was not kept yet is kept then
        make_trainer(tmp_path, recipe).run(Look())
    assert found == kept
    assert len(load_checkpoint(tmp_path / "last.ckpt")["history"]) == 3


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


class Press(Watch):
    """Sends a signal to this very process at batch ``place[1]`` of epoch ``place[0]``, ``times`` times."""

    def __init__(self, place: tuple[int, int], number: int, times: int = 1) -> None:
        super().__init__()
        self.place, self.number, self.times = place, number, times

    def on_batch(self, done: int, total: int, losses: Sequence[float]) -> None:
        super().on_batch(done, total, losses)
        if (self.done + 1, done) == self.place:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


def expect_same_end(one: Path, other: Path) -> None:
    whole, parts = (load_checkpoint(folder / "last.ckpt") for folder in (one, other))
    assert name_differences(whole, parts) == []


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("method", ["rmg", "snapmix"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_batch_under_way(tmp_path: Path, method: Method, number: int) -> None:
    """Stopped after every mini-batch of every epoch: all of it goes on where it was."""
    recipe = replace(WIDE, augmentation=method, freeze_epochs=1, epochs=2)
    dataset = make_dataset(side=recipe.resize)
    make_trainer(tmp_path / "whole", recipe, dataset=dataset).run(Watch())
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    for epoch in (1, 2):
        for batch in (1, 2, 3):
            trainer = make_trainer(tmp_path / "parts", recipe, dataset=dataset)
            untested = (epoch, batch) == (2, 1)  # the first epoch is trained, and its test comes before the second
            assert (len(trainer.history), trainer.epoch.done) == ((0, 3) if untested else (epoch - 1, batch - 1))
            watch = Press((1 + untested, batch), number)
            with pytest.raises(Stopped) as stopped:
                trainer.run(watch)
            assert stopped.value.signal == number
            assert watch.batches == 1
            torch.rand(5)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    make_trainer(tmp_path / "parts", recipe, dataset=dataset).run(Watch())
    expect_same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.usefixtures("small_backbone")
def test_a_signal_during_the_test_does_not_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_trainer(tmp_path / "whole").run(Watch())

    def press(*_: Any, pause: Callable[[], None]) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        pause()
        raise AssertionError("went on")

    with monkeypatch.context() as patch:
        patch.setattr("pmsi.training.trainer.evaluate", press)
        with pytest.raises(Stopped):
            make_trainer(tmp_path / "parts").run(Watch())
    trainer, watch = make_trainer(tmp_path / "parts"), Watch()
    assert (len(trainer.history), trainer.epoch.done) == (0, 3)
    trainer.run(watch)
    assert watch.batches == 3  # of the second epoch alone
    expect_same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.usefixtures("small_backbone")
def test_the_second_signal_stops_at_once(tmp_path: Path) -> None:
    watch = Press((1, 2), signal.SIGINT, times=2)
    with pytest.raises(Stopped):
        make_trainer(tmp_path).run(watch)
    assert not (tmp_path / "last.ckpt").exists()


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    """ "gone" is what a kill between the two renames leaves."""
    recipe = replace(RECIPE, epochs=3)
    make_trainer(tmp_path / "whole", recipe).run(Watch())
    with pytest.raises(Stopped):
        make_trainer(tmp_path / "parts", recipe).run(Press((3, 2), signal.SIGINT))
    last = tmp_path / "parts" / "last.ckpt"
    bits = bytearray(last.read_bytes())
    place = bits.find(load_checkpoint(last)["model"]["concat_classifier.0.weight"].numpy().tobytes()[:32])
    if damage == "bit":
        assert place > 0
        bits[place] ^= 1
    last.write_bytes(bits if damage == "bit" else bits[: len(bits) // 2])
    if damage == "gone":
        last.unlink()
        trainer = make_trainer(tmp_path / "parts", recipe)
    else:
        with pytest.warns(UserWarning, match=r"last.ckpt is damaged.*going on from previous.ckpt"):
            trainer = make_trainer(tmp_path / "parts", recipe)
    assert (len(trainer.history), trainer.epoch.done) == (2, 0)
    trainer.run(Watch())
    expect_same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.usefixtures("small_backbone")
def test_two_damaged_checkpoints_are_an_error_and_stay(tmp_path: Path) -> None:
    make_trainer(tmp_path).run(Watch())
    for place in (tmp_path / "last.ckpt", previous_path(tmp_path / "last.ckpt")):
        place.write_bytes(place.read_bytes()[:-100])
    before = read_folder(tmp_path)
    with pytest.raises(ValueError, match=r"last.ckpt is damaged.*previous.ckpt is damaged.*remove them to start anew"):
        make_trainer(tmp_path)
    assert read_folder(tmp_path) == before


@pytest.mark.usefixtures("small_backbone")
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    class Spoil(Watch):
        def on_batch(self, done: int, total: int, losses: Sequence[float]) -> None:
            super().on_batch(done, total, losses)
            if (self.done, done) == (1, 1):
                with torch.no_grad():
                    trainer.network.get_parameter("concat_classifier.0.weight").fill_(torch.nan)

    trainer = make_trainer(tmp_path, replace(RECIPE, epochs=3))
    with pytest.raises(ValueError, match=r"the loss of phase 4 is not finite in mini-batch 2 of epoch 2; lower --lr"):
        trainer.run(Spoil())
    state = load_checkpoint(tmp_path / "last.ckpt")
    assert len(state["history"]) == 1
    assert all(value.isfinite().all() for value in state["model"].values())


@pytest.mark.usefixtures("small_backbone")
def test_every_mini_batch_has_a_dropout_of_its_own(tmp_path: Path) -> None:
    class Listen(Watch):
        seeds: set[int] = set()  # noqa: RUF012 - of one test

        def on_batch(self, done: int, total: int, losses: Sequence[float]) -> None:
            super().on_batch(done, total, losses)
            self.seeds.add(torch.initial_seed())

    watch = Listen()
    make_trainer(tmp_path).run(watch)
    assert len(watch.seeds) == watch.batches == 6


def test_saving_keeps_the_last_two(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    for number in range(4):
        save_checkpoint(path, {"identity": {}, "number": number, "tensor": torch.full((3,), number)})
    assert [load_checkpoint(place)["number"] for place in (path, previous_path(path))] == [3, 2]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]


def run_and_die(folder: Path, recipe: Recipe, moment: float) -> None:
    """In a child: killed by the kernel after ``moment`` seconds, wherever it is."""
    signal.setitimer(signal.ITIMER_REAL, moment)
    make_trainer(folder, recipe).run(Watch())


@pytest.mark.usefixtures("small_backbone")
def test_killed_at_random_moments_it_ends_as_if_it_were_not(tmp_path: Path) -> None:
    """10 times, with no chance to say goodbye; whole files only, the same weights to the bit."""
    recipe = replace(RECIPE, epochs=20)
    make_trainer(tmp_path / "whole", recipe).run(Watch())
    moments = torch.rand(10, generator=torch.Generator().manual_seed(5)).mul(0.35).add(0.02).tolist()
    context, killed = multiprocessing.get_context("fork"), 0
    torch.set_num_threads(1)  # a forked child has no other threads
    for moment in moments:
        child = context.Process(target=run_and_die, args=(tmp_path / "parts", recipe, moment))
        child.start()
        child.join(120)
        assert child.exitcode in (0, -signal.SIGALRM)
        killed += child.exitcode != 0
        for place in (tmp_path / "parts").glob("*.ckpt"):
            load_checkpoint(place)  # whole, checksum and all
    assert killed >= 5
    make_trainer(tmp_path / "parts", recipe).run(Watch())
    expect_same_end(tmp_path / "whole", tmp_path / "parts")
