"""The state of an epoch: its clock, mean losses, and the share of time that inputs take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pmsi.data.preprocess import preprocess
from pmsi.training.epoch import Clock, EpochState, read_progress
from tests.helpers.small_run import BATCHES, RECIPE, Watch, make_trainer

CPU = torch.device("cpu")


def test_a_clock_adds_up_what_passes_within(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 1.5, 7.0, 9.0])
    monkeypatch.setattr("pmsi.training.epoch.time.perf_counter", lambda: next(times))
    clock = Clock(CPU, seconds=10.0)
    for _ in range(2):
        with clock:
            pass
    assert clock.read() == 12.5
    assert Clock(CPU).read() == 0


def test_a_clock_of_a_gpu_reads_all_its_events_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their times are milliseconds, which are known when the GPU has come so far."""

    @dataclass
    class Event:
        time: float

        def elapsed_time(self, end: Event) -> float:
            return end.time - self.time

    times = iter([0.0, 500.0, 4000.0, 6000.0])
    monkeypatch.setattr("pmsi.training.epoch._record_event", lambda **_: Event(next(times)))
    clock = Clock(torch.device("cuda"))
    for _ in range(2):
        with clock:
            pass
    assert clock.seconds == 0
    assert [clock.read(), clock.read()] == [2.5, 2.5]


def test_an_epoch_tells_mean_losses_so_far() -> None:
    epoch = EpochState(2, CPU, done=2, losses=[2.0, 6.0])
    epoch.add(torch.tensor([4.0, 0.0]))
    assert epoch.latest_losses() == [2.0, 2.0]


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize(("method", "made", "share"), [("rmg", 4, 1), ("snapmix", 2, 0.5)])
def test_waiting_for_input_is_counted_as_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any, made: int, share: float
) -> None:
    """A clock that ticks a second whenever a batch is made, and never else; what SnapMix looks at is no input."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def tick(*words: Any, **options: Any) -> Tensor:
        now[0] += 1
        return preprocess(*words, **options)

    monkeypatch.setattr("pmsi.training.inputs.preprocess", tick)
    trainer = make_trainer(tmp_path, replace(RECIPE, epochs=1, augmentation=method))
    trainer.run(Watch())
    assert trainer.history[0]["seconds"] == made * BATCHES
    assert trainer.history[0]["speed"]["input_share"] == share


def test_an_epoch_comes_back_from_its_checkpoint() -> None:
    """With the names that checkpoints have had since the first version."""
    state = {"done": 2, "losses": [2.0, 6.0], "seconds": 5.0, "waited": 1.5}
    epoch = EpochState.from_dict(state, CPU)
    assert epoch.input.read() == 1.5
    assert epoch.elapsed() >= 5
    again = epoch.to_dict()
    assert list(again) == list(state)
    assert {**again, "seconds": 5.0} == state
    assert list(epoch.time_inputs(iter("ab"))) == ["a", "b"]
    assert epoch.input.read() > 1.5


@pytest.mark.parametrize(
    "changes",
    [
        {"history": None},
        {"history": [1]},
        {"history": [{}]},
        {"epoch": {}},
        {"epoch": {"done": -1}},
        {"epoch": {"losses": [1.0]}},
    ],
)
def test_progress_that_no_run_makes_is_refused(changes: dict[str, Any]) -> None:
    epoch = {"done": 2, "losses": [2.0, 6.0], "seconds": 5.0, "waited": 1.5}
    state: dict[str, Any] = {"history": [], "epoch": epoch}
    assert read_progress(state, 2, CPU, Path("last.ckpt"))[1].done == 2
    if changes.get("epoch"):
        changes = {"epoch": epoch | changes["epoch"]}
    with pytest.raises(ValueError, match=r"last\.ckpt does not say how far it was trained"):
        read_progress(state | changes, 2, CPU, Path("last.ckpt"))
