"""A run's folder: its identity and lock, and the results that are written to and read from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from torch import Tensor

from pmsi.data.dataset import Dataset
from pmsi.evaluation.accuracy import Evaluation
from pmsi.evaluation.calibration import Answers, rank_answers
from pmsi.experiments.source import Source, describe_weights
from pmsi.experiments.tables import Row, name_run
from pmsi.models.base import Network
from pmsi.models.registry import read_network
from pmsi.models.trained import read_recipe
from pmsi.recipe import Recipe
from pmsi.runtime.checkpoints import check_identity, load_checkpoint
from pmsi.runtime.environment import name_version
from pmsi.runtime.files import PART, check_fields, expand_home, read_json, write_json
from pmsi.runtime.session import Session
from pmsi.training.batches import count_batches
from pmsi.training.trainer import Trainer

LOCK = ".lock"  # of a run folder: held while a process trains there
_WRITTEN_BY = "written_by"  # in config.json, beside the identity: `name_version` of the code that began the folder
_STUDIES = {"study", "table4", "reproduce"}  # "experiment" in config.json, the last two of versions before one engine


class FolderBusyError(ValueError):
    """Another process trains in the folder of a run."""


@dataclass(frozen=True)
class Predictions:
    """Labels of all test images and the classes that a network predicted, each int64 ``[N]``.

    Args:
        answers: the best classes with their probabilities; None in folders of earlier versions.
    """

    labels: Tensor
    concat: Tensor
    mix: Tensor
    answers: Answers | None = None


def list_settings(source: Source, recipe: Recipe) -> dict[str, Any]:
    """Part of a run's identity that is known before the data are read."""
    return {
        "data": source.data,
        "root": None if source.root is None else str(expand_home(Path(source.root)).resolve()),
        "hold_out": source.hold_out,
        "train_per_class": source.train_per_class,
        "skip_unreadable": source.skip_unreadable,
        "weights": describe_weights(source.find_weights(recipe.backbone)),
        **{f"recipe.{name}": value for name, value in recipe.to_dict().items()},
    }


def make_identity(source: Source, dataset: Dataset, recipe: Recipe, fabric: Fabric) -> dict[str, Any]:
    """Values that two runs must share to be one run continued.

    Raises:
        ValueError: the training images do not fill one batch.
    """
    count_batches(recipe, len(dataset.train.labels))
    return {
        **list_settings(source, recipe),
        **dataset.identity,
        "precision": fabric.strategy.precision.precision,
    }


def match_older(identity: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """``identity`` without the settings that ``stored`` does not know and that have their defaults.

    A folder that was written before a setting existed is then continued, and keeps the identity it has. Weights of the
    same bytes have the name that is stored, whatever their file is called now.
    """
    defaults = {f"recipe.{one.name}": one.default for one in fields(Recipe)}
    defaults |= {one.name: one.default for one in fields(Source)}
    kept = {
        name: value
        for name, value in identity.items()
        if name in stored or name not in defaults or value != defaults[name]
    }
    digests = [str(values.get("weights")).partition(" (sha256 ")[2] for values in (kept, stored)]
    return {**kept, "weights": stored["weights"]} if digests[0] and digests[0] == digests[1] else kept


def read_config(folder: Path) -> dict[str, Any] | None:
    """Identity that ``config.json`` of a folder holds, and the version that began it; None without the file."""
    found = read_json(folder / "config.json")
    if found is not None:
        check_fields(found, {"experiment": (str, NoneType), _WRITTEN_BY: (str, NoneType)}, folder / "config.json")
    return found


def check_folder(folder: Path, source: Source, recipe: Recipe, *, rows: bool) -> None:
    """Refuse a folder that holds another run, as far as that can be known before the data are read.

    Args:
        rows: the folder is for runs that differ in their augmentation.

    Raises:
        ValueError: it holds another run, or other files.
    """
    found = read_config(folder)
    if found is not None:
        wanted = list_settings(source, replace(recipe, augmentation="none") if rows else recipe)
        wanted = match_older(wanted, found)
        known = {name: value for name, value in found.items() if name in wanted or name.startswith("recipe.")}
        check_identity(known, wanted, folder, found.get(_WRITTEN_BY))
    elif folder.exists() and any(path.name != LOCK and path.suffix != PART for path in folder.iterdir()):
        raise ValueError(f"{folder} holds other files and no config.json; choose another --run folder")


def write_identity(folder: Path, identity: dict[str, Any], session: Session) -> dict[str, Any]:
    """Write ``config.json``, or check that the one there is of the same run; called by all processes.

    Returns:
        The identity that the file holds, with the place of the images now: an older folder keeps what it was written
        with.

    Raises:
        ValueError: the folder belongs to another run.
    """

    def write() -> dict[str, Any]:
        found = read_config(folder)
        if found is None:
            write_json(folder / "config.json", {**identity, _WRITTEN_BY: name_version()})
            return identity
        written_by = found.pop(_WRITTEN_BY, None)
        wanted = match_older(identity, found)
        if {found.get("experiment"), wanted.get("experiment")} <= _STUDIES:
            wanted["experiment"] = found["experiment"]
        check_identity(found, wanted, folder, written_by)
        return {**found, "root": wanted["root"]} if "root" in wanted else found  # where the images are now

    session.fabric.barrier()  # all have looked into the folder before
    return session.processes.take_turns(write)


def locate_run(folder: Path, row: Row, seed: int) -> Path:
    """Folder of a run inside a study's folder: by `name_run`, or an older one whose ``config.json`` is this run's.

    `pmsi compare` named its runs METHOD-seedN once, and a recipe with a new setting has a new name.
    """
    place = folder / name_run(row, seed)
    if place.exists():
        return place
    for config in sorted(folder.glob(f"*-seed{seed}/config.json")):
        stored = read_config(config.parent) or {}
        if (stored.get("seed"), stored.get("train_per_class")) != (seed, row.source.train_per_class):
            continue
        try:
            if read_recipe(stored) == row.recipe:
                return config.parent
        except ValueError:  # of a newer version: not this run
            continue
    return place


@contextmanager
def lock_folder(folder: Path, session: Session, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes out of ``folder``; the system lets go when the process ends, however it does.

    Raises:
        FolderBusyError: another process holds it, and this one is not to wait for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, busy = FileLock(folder / LOCK), False
    if session.fabric.is_global_zero:
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            busy = True
        except (NotImplementedError, OSError) as error:
            raise OSError(f"{folder}: cannot be locked ({error}); choose a --run folder elsewhere") from error
    if session.processes.max_over_processes(int(busy)):
        raise FolderBusyError(f"another process is training in {folder}; wait for it, or choose another --run folder")
    try:
        if session.fabric.is_global_zero:
            for left in folder.glob(f".*{PART}"):  # by a process that was killed
                left.unlink()
        yield
    finally:
        lock.release()


def keep_result(
    folder: Path, dataset: Dataset, trainer: Trainer, evaluation: Evaluation, session: Session
) -> dict[str, Any]:
    """Write ``predictions.json`` and ``result.json`` of a finished run, and return the latter."""
    tested = [record for record in trainer.history if record["mix"] is not None]
    best = max(tested, key=lambda record: float(record["mix"]))
    result = {
        "seed": trainer.seed,
        "concat": evaluation.concat,
        "mix": evaluation.mix,
        "stages": list(evaluation.stages),
        "best_epoch": best["epoch"],
        "best_mix": best["mix"],
        "seconds": sum(record["seconds"] for record in trainer.history),
        "curve": trainer.history,
    }
    answers = rank_answers(evaluation.logits, dataset.test.labels)
    predictions = {
        "labels": dataset.test.labels.tolist(),
        "concat": evaluation.concat_predictions.tolist(),
        "mix": evaluation.mix_predictions.tolist(),
        "top": answers.classes.tolist(),
        **{name: _round(getattr(answers, name)) for name in ("probabilities", "raw", "temperature")},
    }
    if session.fabric.is_global_zero:
        write_json(folder / "predictions.json", predictions)
        write_json(folder / "result.json", result)
    session.fabric.barrier()  # another process that looks for the result finds it
    return result


def read_result(folder: Path) -> dict[str, Any]:
    """``result.json`` of a run, and the name of its folder; ValueError if it is damaged."""
    path = folder / "result.json"
    found = read_json(path)
    if found is None:
        raise FileNotFoundError(f"there is no file {path}")
    run = {**found, "folder": folder.name}
    check_run(run, path)
    return {"folder": folder.name, **run}


def check_run(run: Any, path: Path) -> None:
    """ValueError unless ``run``, of the file ``path``, has the values that tables and pages are made of."""
    number = (int, float)
    kinds = {"folder": (str,), "seed": (int,), "concat": number, "mix": number, "stages": (list,), "curve": (list,)}
    check_fields(run, kinds, path)
    if run["folder"] != "." and run["folder"] != Path(run["folder"]).name:
        raise ValueError(f"{path} is damaged: it names the folder {run['folder']!r}, which is not beside it; remove it")
    for record in run["curve"]:
        check_fields(record, {"epoch": (int,), "losses": (list,), "mix": (*number, NoneType)}, path)
    values = [*run["stages"], *(loss for record in run["curve"] for loss in record["losses"])]
    if not all(isinstance(value, number) for value in values):
        raise ValueError(f"{path} is damaged: accuracies and losses must be numbers; remove it")


def read_predictions(folder: Path) -> Predictions | None:
    """``predictions.json`` of a run; None without the file, and ValueError if it is damaged."""
    path, names = folder / "predictions.json", ("labels", "concat", "mix")
    found = read_json(path)
    if found is None:
        return None
    check_fields(found, dict.fromkeys(names, (list,)), path)
    columns = [found[name] for name in names]
    sane = all(type(value) is int and 0 <= value < 2**31 for column in columns for value in column)
    if not sane or len({len(column) for column in columns}) > 1:
        raise ValueError(f"{path} is damaged: it must hold as many classes as labels, all from 0; remove it")
    labels, concat, mix = map(torch.tensor, columns)
    return Predictions(labels, concat, mix, _read_answers(found, len(labels), path))


def _read_answers(found: Mapping[str, Any], images: int, path: Path) -> Answers | None:
    """Best classes and their probabilities, which predictions of earlier versions do not have."""
    if "top" not in found:
        return None
    lists = ("top", "probabilities", "raw")
    check_fields(found, {**dict.fromkeys(lists, (list,)), "temperature": (int, float)}, path)
    try:
        top, probabilities, raw = (torch.tensor(found[name]) for name in lists)
        fits = len(top) == len(raw) == images and top.shape == probabilities.shape and not top.is_floating_point()
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged: its best classes are no table of numbers; remove it") from error
    if not fits:
        raise ValueError(f"{path} is damaged: it must hold as many best classes as labels; remove it")
    return Answers(top, probabilities.float(), raw.float(), found["temperature"])


def _round(values: Tensor | float) -> Any:
    """Plain numbers of six digits, of which a test has ten thousands."""
    return round(values, 6) if isinstance(values, float) else values.double().mul(1e6).round().div(1e6).tolist()


def open_network(folder: Path, recipe: Recipe, num_classes: int, fabric: Fabric) -> Network:
    """A finished run's network, on the device, in eval mode."""
    path = folder / "last.ckpt"
    network = read_network(load_checkpoint(path), recipe, num_classes, path)
    network.to(fabric.device).eval()
    return network
