"""A run and its folder: what it is, who is at it, and what was found."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.fabric import Fabric

from pmsi.backbones import make_backbone
from pmsi.config import Recipe
from pmsi.data import DataName, Dataset, load
from pmsi.devices import Device, Precision, Processes
from pmsi.evaluate import Evaluation
from pmsi.files import PART, check_identity, write_json
from pmsi.loader import count_batches
from pmsi.profile import Profile
from pmsi.train import Trainer
from pmsi.watch import Watch

LOCK = ".lock"  # of a run folder: held while a process trains there


class BusyError(ValueError):
    """Another process is at a run."""


@dataclass(frozen=True)
class Source:
    """Data and initial weights of a run."""

    data: DataName = "typefaces"
    """"typefaces" is rendered on the spot; "cub", "cars" and "aircraft" (with labels of another level: -family,
    -manufacturer) are the official layouts of the paper's data sets; "folder" is an ImageFolder."""
    root: Path | None = None
    """Folder of the images: as the official archive unpacks, or for "folder" train/ and test/, or class folders."""
    weights: str = "none"
    """Backbone weights: a file of torchvision's tensors, a folder of files that begin with the backbones' names,
    "imagenet" (downloaded by torchvision), or "none"."""
    hold_out: int | None = None
    """n; train on all but every n-th training image of each class and test on those, to choose settings by; the data
    set's own test images are not looked at."""
    train_per_class: int | None = None
    """n; train on the first n training images of each class alone, of those not held out."""
    skip_unreadable: bool = False
    """Leave out and count images that cannot be read, rather than stop at the first."""
    cache: Path | None = Path("~/.cache/pmsi")
    """Folder that keeps decoded images, so that a second run decodes none; None keeps none."""
    stream: bool = False
    """Decode images anew in every epoch, in worker processes: for sets that neither memory nor the cache holds."""

    def find_weights(self, backbone: str) -> str:
        """The file of a folder that is for ``backbone``; what is no folder is for all.

        Raises:
            FileNotFoundError: the folder has none.
        """
        folder = Path(self.weights).expanduser()
        if self.weights in ("none", "imagenet") or not folder.is_dir():
            return self.weights
        files = sorted(folder.glob(f"{backbone.replace(':', '_')}*.pth"))
        if not files:
            raise FileNotFoundError(f"weights: {folder} has no file {backbone}*.pth; put it there, or give one file")
        return str(files[0])

    def check_weights(self, backbone: str) -> None:
        """Raises what `make_backbone` and `find_weights` do, before anything is trained; downloads what is to come."""
        make_backbone(backbone, self.find_weights(backbone))

    def load(
        self,
        recipe: Recipe,
        progress: Callable[[str, int, int], None] | None = None,
        say: Callable[[str], None] = print,
    ) -> Dataset:
        """All images at the recipe's size, as uint8; weights that will not fit are refused first."""
        self.check_weights(recipe.backbone)
        root, cache = (None if path is None else Path(path).expanduser() for path in (self.root, self.cache))
        how: dict[str, Any] = {"skip_unreadable": self.skip_unreadable, "cache": cache, "stream": self.stream}
        how |= {"hold_out": self.hold_out, "train_per_class": self.train_per_class}
        return load(self.data, root, resize=recipe.resize, progress=progress, say=say, **how)


@dataclass(frozen=True)
class Engine:
    """How a run is computed: what changes its speed, and its result by rounding alone."""

    device: Device = "auto"
    """Where to compute; under torchrun, each process takes a device of its own."""
    precision: Precision = "auto"
    """Autocast to "bf16" or "fp16", or "32"; "auto" is bf16 on GPUs that have it, and 32 elsewhere."""
    compile: bool = False
    """Compile network and loss of every phase: minutes at the start for faster steps."""


def identify(source: Source, dataset: Dataset, recipe: Recipe, fabric: Fabric) -> dict[str, Any]:
    """What two runs must share to be one run continued.

    Raises:
        ValueError: the training images do not fill one batch.
    """
    count_batches(recipe, len(dataset.train.labels))
    return {
        **_settings(source, recipe),
        "classes": len(dataset.classes),
        "train_images": len(dataset.train.labels),
        "test_images": len(dataset.test.labels),
        "data_crc32": dataset.train.crc32 ^ dataset.test.crc32,
        "precision": fabric.strategy.precision.precision,
    }


def check_folder(folder: Path, source: Source, recipe: Recipe, *, rows: bool) -> None:
    """Whether ``folder`` is free or holds this very run, as far as can be told before the data are read.

    Args:
        rows: the folder is for runs that differ in their augmentation.

    Raises:
        ValueError: it holds another run, or other files.
    """
    config = folder / "config.json"
    if config.exists():
        found = json.loads(config.read_text(encoding="utf-8"))
        wanted = _settings(source, replace(recipe, augmentation="none") if rows else recipe)
        check_identity({name: found.get(name) for name in wanted}, wanted, folder)
    elif folder.exists() and any(path.name != LOCK and path.suffix != PART for path in folder.iterdir()):
        raise ValueError(f"{folder} holds other files and no config.json; choose another --run folder")


def run_once(
    source: Source,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    folder: Path,
    fabric: Fabric,
    watch: Watch,
    compile: bool = False,  # noqa: A002 - torch's name
    profile: Profile | None = None,
) -> dict[str, Any]:
    """Train or continue one run; ``result.json`` appears in its folder when it is done."""
    identity = {**identify(source, dataset, recipe, fabric), "seed": seed}
    check_folder(folder, source, recipe, rows=False)
    weights = source.find_weights(recipe.backbone)
    how: dict[str, Any] = {"seed": seed, "identity": identity, "folder": folder, "fabric": fabric, "compile": compile}
    with hold(folder, fabric):
        claim(folder, identity, fabric)
        trainer = Trainer(recipe, dataset, weights=weights, **how)
        evaluation = trainer.run(watch, profile)
        return _keep_result(folder, dataset, trainer, evaluation)


def _keep_result(folder: Path, dataset: Dataset, trainer: Trainer, evaluation: Evaluation) -> dict[str, Any]:
    best = max(trainer.history, key=lambda record: float(record["mix"]))
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
    predictions = {
        "labels": dataset.test.labels.tolist(),
        "concat": evaluation.concat_predictions.tolist(),
        "mix": evaluation.mix_predictions.tolist(),
    }
    if trainer.fabric.is_global_zero:
        write_json(folder / "predictions.json", predictions)
        write_json(folder / "result.json", result)
    trainer.fabric.barrier()  # whoever looks for the result finds it
    return result


@contextmanager
def hold(folder: Path, fabric: Fabric, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes out of ``folder``; the system lets go when the process ends, however it does.

    Raises:
        BusyError: another process holds it, and this one is not to wait for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, busy = FileLock(folder / LOCK), False
    if fabric.is_global_zero:
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            busy = True
    if Processes(fabric).find_largest(int(busy)):
        raise BusyError(f"another process is training in {folder}; wait for it, or choose another --run folder")
    try:
        if fabric.is_global_zero:
            for left in folder.glob(f".*{PART}"):  # by a process that was killed
                left.unlink()
        yield
    finally:
        lock.release()


def describe_environment(fabric: Fabric) -> dict[str, str]:
    """Versions and hardware, for the record."""
    packages = ("torch", "torchvision", "lightning", "numpy", "mosaicaug")
    versions = {name: importlib.metadata.version(name) for name in packages}
    device = _processor() if fabric.device.type == "cpu" else torch.cuda.get_device_name(fabric.device)
    count = torch.get_num_threads()
    threads = f" ({count} thread{'s' if count > 1 else ''})" if fabric.device.type == "cpu" else ""
    return {
        "python": platform.python_version(),
        **versions,
        "device": f"{fabric.device.type}: {device}{threads}",
        "precision": fabric.strategy.precision.precision,
        "processes": str(fabric.world_size),
        "platform": f"{platform.system()} {platform.machine()}",
        "commit": _commit(),
    }


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """What a report says about the data."""
    return {
        "name": dataset.name,
        "classes": len(dataset.classes),
        "train_images": len(dataset.train.labels),
        "test_images": len(dataset.test.labels),
        "protocol": dataset.protocol,
        "skipped": list(dataset.skipped),
    }


def _settings(source: Source, recipe: Recipe) -> dict[str, Any]:
    return {
        "data": source.data,
        "root": None if source.root is None else str(Path(source.root).resolve()),
        "hold_out": source.hold_out,
        "train_per_class": source.train_per_class,
        "skip_unreadable": source.skip_unreadable,
        "weights": describe_weights(source.find_weights(recipe.backbone)),
        **{f"recipe.{name}": value for name, value in recipe.to_dict().items()},
    }


def claim(folder: Path, identity: dict[str, Any], fabric: Fabric) -> None:
    """Write down what the folder is for, or see that it is for this; all processes have looked into it before."""
    config = folder / "config.json"

    def claim() -> None:
        if config.exists():
            check_identity(json.loads(config.read_text(encoding="utf-8")), identity, folder)
        else:
            write_json(config, identity)

    fabric.barrier()
    Processes(fabric).take_turns(claim)


def describe_weights(weights: str) -> str:
    """Where backbone weights come from, and a digest of a file."""
    if weights in ("none", "imagenet"):
        return weights
    path = Path(weights)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
    return f"{Path(weights).name} (sha256 {digest[:16]})"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
    return found.stdout.strip()
