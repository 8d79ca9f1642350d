"""Loggers of a run: one point an epoch in each, a continued run under its own name, a missing package in one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pmsi.cli.commands import main
from pmsi.training.callbacks import Silent
from pmsi.training.loggers import Curves, LoggedRun, LogName, check_logger
from tests.helpers.small_run import RECIPE, make_trainer


class Stop:
    """Passes on, and presses Ctrl-C after so many epochs."""

    def __init__(self, watch: Any, epochs: int) -> None:
        self.watch, self.epochs = watch, epochs

    def on_batch(self, done: int, total: int, losses: Sequence[float]) -> None:
        self.watch.on_batch(done, total, losses)

    def on_epoch(self, record: dict[str, Any]) -> None:
        self.watch.on_epoch(record)
        if record["epoch"] == self.epochs:
            raise KeyboardInterrupt


def make_record(epoch: int) -> dict[str, Any]:
    speed = {"images": "cpu", "images_per_second": 9.0, "memory_gb": None}
    kept = {"concat": 50.0, "mix": 40.0 + epoch, "stages": [1.0, 2.0, 3.0], "losses": [0.5], "lr": [0.1, 0.01]}
    return {"epoch": epoch, "speed": speed, **kept}


@pytest.mark.usefixtures("small_backbone")
def test_tensorboard_holds_one_point_an_epoch(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe = replace(RECIPE, epochs=3)
    run = LoggedRun(tmp_path, {}, 3)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, recipe).run(Stop(Curves("tensorboard", run, Silent()), 1))
    trainer = make_trainer(tmp_path, recipe)
    trainer.run(Curves("tensorboard", run, Silent()))
    events = reader.EventAccumulator(str(tmp_path))
    events.Reload()
    for name, wanted in (("accuracy/mix", "mix"), ("accuracy/concat", "concat")):
        assert [(e.step, e.value) for e in events.Scalars(name)] == [
            (record["epoch"], pytest.approx(record[wanted])) for record in trainer.history
        ]
    assert {f"loss/phase {k}" for k in range(1, 5)} <= set(events.Tags()["scalars"])


def test_tensorboard_shows_an_epoch_as_soon_as_it_is_done(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    curves = Curves("tensorboard", LoggedRun(tmp_path, {}, 3), Silent())
    for epoch in (1, 2):
        curves.on_epoch(make_record(epoch))
        events = reader.EventAccumulator(str(tmp_path))
        events.Reload()
        assert [event.step for event in events.Scalars("accuracy/mix")] == [*range(1, epoch + 1)]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_runs_of_services_go_on_under_their_name(
    name: LogName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packages' own calls, in place of the packages."""
    opened, written, closed = list[dict[str, Any]](), list[tuple[dict[str, float], int]](), list[int]()

    def init(**given: Any) -> SimpleNamespace:
        opened.append(given)
        return SimpleNamespace(log=lambda values, step: written.append((values, step)), finish=lambda: closed.append(1))

    install(monkeypatch, name, init=init)
    run = LoggedRun(tmp_path / "runs" / "mine", {"epochs": 2}, 2)
    batches: list[tuple[Any, ...]] = []
    for epoch in (1, 2):  # each in a process of its own
        callback = Silent()
        monkeypatch.setattr(callback, "on_batch", lambda *words: batches.append(words), raising=False)
        curves = Curves(name, run, callback)
        curves.on_batch(1, 3, [0.5])
        assert closed == []
        curves.on_epoch(make_record(epoch))
    assert batches == [(1, 3, [0.5])] * 2
    first, second = opened
    assert first == second
    assert (first["project"], first["name"], first["resume"]) == ("pmsi", "runs/mine", "allow")
    assert first["config"] == {"epochs": 2}
    if name == "wandb":
        assert first["dir"] == str(run.folder)
        assert first["id"] == run.key
    assert [(values["accuracy/mix"], step) for values, step in written] == [(41.0, 1), (42.0, 2)]
    assert written[0][0].keys() >= {"accuracy/stage 5", "loss/phase 1", "speed/images_per_second", "rate/group 2"}
    assert len(closed) == 1, "after the last epoch"


def test_mlflow_goes_on_with_the_run_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, metrics = list[dict[str, Any]](), list[tuple[dict[str, float], int]]()

    def search(filter_string: str, max_results: int, output_format: str) -> list[SimpleNamespace]:
        assert (max_results, output_format) == (1, "list")
        mine = [one for one in runs if "tags" in one and filter_string == f"tags.pmsi = '{one['tags']['pmsi']}'"]
        return [SimpleNamespace(info=SimpleNamespace(run_id="7"))] if mine else []

    install(
        monkeypatch,
        "mlflow",
        set_experiment=lambda *_: None,
        search_runs=search,
        start_run=lambda **given: runs.append(given),
        log_params=lambda *_: None,
        log_metrics=lambda values, step: metrics.append((values, step)),
        end_run=lambda: None,
    )
    for epoch in (1, 2):
        Curves("mlflow", LoggedRun(tmp_path, {}, 2), Silent()).on_epoch(make_record(epoch))
    assert runs[1] == {"run_id": "7"}
    assert [step for _, step in metrics] == [1, 2]


def install(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Any) -> None:
    """Put a module of these functions in a package's place."""
    module = ModuleType(name)
    vars(module).update(functions, __spec__=object())
    monkeypatch.setitem(sys.modules, name, module)


def test_a_missing_package_is_named_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="--log wandb needs the package wandb, which is missing; pip install wandb"):
        check_logger("wandb")
    for command in ("train", "compare"):
        assert main([command, "--log", "wandb", "--run", str(tmp_path / "run")]) == 2
        assert "pip install wandb" in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []
