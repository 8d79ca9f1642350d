"""Loggers that keep curves of a run: TensorBoard, Weights & Biases, Trackio and MLflow, each by its own package."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pmsi.runtime.files import expand_home
from pmsi.training.callbacks import Callback

LogName = Literal["tensorboard", "wandb", "trackio", "mlflow"]


@dataclass(frozen=True)
class LoggedRun:
    """Run as loggers know it.

    Args:
        folder: of the run; a continued one goes on under the same name.
        settings: flat values to show beside the curves.
        epochs: after which the logger is closed.
    """

    folder: Path
    settings: Mapping[str, Any]
    epochs: int

    @property
    def name(self) -> str:
        """Last two parts of the folder."""
        return "/".join(expand_home(self.folder).resolve().parts[-2:])

    @property
    def key(self) -> str:
        """Text that tells runs apart, the same for a continued one."""
        return hashlib.sha256(str(expand_home(self.folder).resolve()).encode()).hexdigest()[:16]


class Log(NamedTuple):
    """Opened logger: functions that write the values of an epoch, and that close it."""

    write: Callable[[Mapping[str, float], int], object]
    close: Callable[[], object]


class Curves:
    """Callback that writes the values of every epoch to a logger, which is opened with the first one.

    Args:
        name: of the logger.
        run: what it is told.
        callback: called as well.

    Raises:
        ValueError: its package is missing.
    """

    def __init__(self, name: LogName, run: LoggedRun, callback: Callback) -> None:
        check_logger(name)
        self.open, self.run, self.callback = _LOGGERS[name], run, callback
        self.log: Log | None = None

    def on_batch(self, done: int, total: int, losses: Sequence[float]) -> None:
        """Call the other callback."""
        self.callback.on_batch(done, total, losses)

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Write accuracies, losses, speed and learning rates of an epoch."""
        self.callback.on_epoch(record)
        epoch = record["epoch"]
        if self.log is None:
            self.log = self.open(self.run, epoch)
        self.log.write(list_values(record), epoch)
        if epoch == self.run.epochs:
            self.log.close()


def list_values(record: Mapping[str, Any]) -> dict[str, float]:
    """Values of an epoch's line of ``metrics.jsonl`` by the names of their curves."""
    values: dict[str, float] = {}
    if record["mix"] is not None:
        values |= {"accuracy/concat": record["concat"], "accuracy/mix": record["mix"]}
        values |= {f"accuracy/stage {k}": one for k, one in enumerate(record["stages"], 6 - len(record["stages"]))}
    values |= {f"loss/phase {k}": one for k, one in enumerate(record["losses"], 1)}
    values |= {f"speed/{name}": value for name, value in record["speed"].items() if isinstance(value, float)}
    return values | {f"rate/group {k}": rate for k, rate in enumerate(record["lr"], 1)}


def check_logger(name: LogName) -> None:
    """ValueError for a logger whose package is missing."""
    try:
        found = find_spec(name) is not None
    except ValueError:  # it is None among the loaded modules
        found = False
    if not found:
        raise ValueError(f"--log {name} needs the package {name}, which is missing; pip install {name}")


def _open_tensorboard(run: LoggedRun, epoch: int) -> Log:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(expand_home(run.folder)), purge_step=epoch)

    def write(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return Log(write, writer.close)


def _open_wandb(run: LoggedRun, _: int) -> Log:
    import wandb

    opened: Any = wandb.init(
        project="pmsi",
        name=run.name,
        id=run.key,
        resume="allow",
        config=dict(run.settings),
        dir=str(expand_home(run.folder)),
        reinit="finish_previous",
    )
    return Log(lambda values, step: opened.log(dict(values), step=step), opened.finish)


def _open_trackio(run: LoggedRun, _: int) -> Log:
    import trackio

    opened: Any = trackio.init(project="pmsi", name=run.name, resume="allow", config=dict(run.settings))
    return Log(lambda values, step: opened.log(dict(values), step=step), opened.finish)


def _open_mlflow(run: LoggedRun, _: int) -> Log:
    import mlflow

    mlflow.set_experiment("pmsi")
    past = mlflow.search_runs(filter_string=f"tags.pmsi = '{run.key}'", max_results=1, output_format="list")
    mlflow.end_run()  # one that was left open
    if past:
        mlflow.start_run(run_id=past[0].info.run_id)
    else:
        mlflow.start_run(run_name=run.name, tags={"pmsi": run.key})
        mlflow.log_params(dict(run.settings))
    return Log(lambda values, step: mlflow.log_metrics(dict(values), step=step), mlflow.end_run)


_LOGGERS: Mapping[LogName, Callable[[LoggedRun, int], Log]] = {
    "tensorboard": _open_tensorboard,
    "wandb": _open_wandb,
    "trackio": _open_trackio,
    "mlflow": _open_mlflow,
}
assert tuple(_LOGGERS) == get_args(LogName)
