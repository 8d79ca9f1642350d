"""Pictures that a report shows: first inputs of the network, activation maps (Fig. 4), and the pointing game."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from mosaicaug import Plan, apply
from pmsi.data.cub_annotations import read_annotations
from pmsi.data.dataset import Dataset
from pmsi.data.layouts import list_images
from pmsi.data.preprocess import center_window, preprocess
from pmsi.evaluation.gradcam import Output, catches_maps, grad_cam
from pmsi.evaluation.pointing import peak_points, score_points
from pmsi.experiments.folder import Predictions, open_network, read_predictions
from pmsi.experiments.source import Source
from pmsi.recipe import Recipe
from pmsi.runtime.files import check_file, describe_error, read_json, replace_file, write_json
from pmsi.training.batches import plan_epoch
from pmsi.training.phases import caption_phases

_PREVIEW_IMAGES = 8
_ACTIVATION_IMAGES = 8
_ERROR_IMAGES = 24
_POINTS = 512  # test images of the pointing game
_BATCH = 32
_STAGES = ("stage N-2", "stage N-1", "stage N")


@dataclass(frozen=True)
class Preview:
    """The first training images as the network saw them.

    Args:
        images: uint8 ``[P, K, 3, H, W]``: P rows of K images.
        captions: P phases; one row where all phases see the same.
    """

    images: Tensor
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Activations:
    """Test images, and where the feature maps of each stage speak for the predicted class.

    Args:
        images: uint8 ``[B, 3, H, W]``, as the network saw them.
        maps: of each stage ``[B, h, w]`` in 0..1, shallow to deep.
        names: of the stages.
    """

    images: Tensor
    maps: tuple[Tensor, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Errors:
    """Test images of which the network was surest and wrong, the surest first.

    Args:
        images: uint8 ``[B, 3, H, W]``, as the network saw them.
        maps: ``[B, h, w]`` in 0..1: where the last feature map speaks for the wrong class; ``[B, 0, 0]`` for networks
            whose maps cannot be caught.
        truth, predicted: int64 ``[B]``.
        confidences: float32 ``[B]``, calibrated.
    """

    images: Tensor
    maps: Tensor
    truth: Tensor
    predicted: Tensor
    confidences: Tensor


def make_preview(dataset: Dataset, recipe: Recipe, seed: int) -> Preview:
    """The first images of a run's first mini-batch, phase by phase."""
    captions = caption_phases(recipe)
    first = next(plan_epoch(recipe, dataset.train.labels, seed=seed, epoch=0))
    stored = dataset.train.take(first.index)
    shown = [apply(stored, draw.plan, window=first.window) for draw in first.draws[: len(captions)]]
    return Preview(torch.stack([images[:_PREVIEW_IMAGES] for images in shown]), tuple(captions))


def keep_preview(folder: Path, dataset: Dataset, recipe: Recipe, seed: int) -> None:
    """Write ``preview.npz`` to the folder of a run that has none."""
    path = folder / "preview.npz"
    if not path.exists():
        found = make_preview(dataset, recipe, seed)
        _write_arrays(path, {"images": found.images.numpy(), "captions": np.array(found.captions)})


def read_preview(folder: Path) -> Preview | None:
    """Read the preview that `keep_preview` wrote; None without the file."""
    arrays = _read_arrays(folder / "preview.npz", "images", "captions")
    if arrays is None:
        return None
    return Preview(torch.from_numpy(arrays["images"]), tuple(map(str, arrays["captions"])))


def make_activations(network: nn.Module, dataset: Dataset, recipe: Recipe, fabric: Fabric) -> Activations:
    """Grad-CAM on test images of different classes."""
    labels = dataset.test.labels
    firsts = [(labels == label).nonzero()[0, 0] for label in range(_ACTIVATION_IMAGES) if (labels == label).any()]
    images, inputs = _crop(dataset, recipe, torch.stack(firsts), fabric)
    maps = tuple(one.cpu() for one in grad_cam(network, inputs))
    return Activations(images, maps, _STAGES[-len(maps) :])


def measure_pointing(
    network: nn.Module, dataset: Dataset, recipe: Recipe, source: Source, fabric: Fabric
) -> dict[str, Any] | None:
    """Pointing game: how often the deepest stage's map peaks on the bird, and how often the centre of the image does.

    Returns:
        ``images``, and ``points``: percent that hit the bird's box and a part of it, None for what is not marked. None
        for data without annotations.
    """
    if dataset.name != "cub" or source.root is None or dataset.skipped:
        return None
    root = source.root
    files = [path for path, _ in list_images("cub", root, source.hold_out).test][:_POINTS]
    annotations = read_annotations(root, files, resize=recipe.resize, crop=recipe.test_side)
    if annotations.boxes is None and annotations.parts is None:
        return None
    side = recipe.test_side
    peaks = [
        peak_points(grad_cam(network, _crop(dataset, recipe, rows, fabric)[1])[-1].cpu(), (side, side))
        for rows in torch.arange(len(files)).chunk(-(-len(files) // _BATCH))
    ]
    points = {"peak of stage N": torch.cat(peaks), "centre of the image": torch.full((len(files), 2), side / 2)}
    hits = {name: list(score_points(places, annotations)) for name, places in points.items()}
    return {"images": len(files), "points": hits}


def keep_activations(
    folder: Path, network: nn.Module, dataset: Dataset, recipe: Recipe, source: Source, fabric: Fabric
) -> None:
    """Write ``pointing.json`` (for data with annotations) and ``activations.npz`` to the folder of a run."""
    pointing = measure_pointing(network, dataset, recipe, source, fabric)
    if pointing is not None:
        write_json(folder / "pointing.json", pointing)
    found = make_activations(network, dataset, recipe, fabric)
    maps = {f"map{number}": one.numpy() for number, one in enumerate(found.maps)}
    _write_arrays(folder / "activations.npz", {"images": found.images.numpy(), "names": np.array(found.names), **maps})


def read_activations(folder: Path) -> Activations | None:
    """Read the maps that `keep_activations` wrote; None without the file."""
    arrays = _read_arrays(folder / "activations.npz", "images", "names")
    if arrays is None:
        return None
    names = tuple(map(str, arrays["names"]))
    maps = tuple(torch.from_numpy(one) for name, one in arrays.items() if name.startswith("map"))
    if len(maps) != len(names):
        raise ValueError(f"{folder / 'activations.npz'} is damaged: it has {len(maps)} maps of {len(names)} stages")
    return Activations(torch.from_numpy(arrays["images"]), maps, names)


def make_errors(
    network: nn.Module, dataset: Dataset, recipe: Recipe, predictions: Predictions, fabric: Fabric
) -> Errors:
    """Make the pictures of the worst errors, with Grad-CAM of the class that was wrongly predicted."""
    answers, labels = predictions.answers, predictions.labels
    assert answers is not None
    chosen, sure = answers.classes[:, 0], answers.probabilities[:, 0]
    wrong = (chosen != labels).nonzero()[:, 0]
    rows = wrong[sure[wrong].argsort(descending=True, stable=True)][:_ERROR_IMAGES]
    side = recipe.test_side
    images, maps = torch.empty(0, 3, side, side, dtype=torch.uint8), torch.empty(0, 0, 0)
    if len(rows):
        images, inputs = _crop(dataset, recipe, rows, fabric)
        maps = torch.empty(len(rows), 0, 0)
        if catches_maps(network):
            network.to(fabric.device)
            output: Output = "mix" if recipe.progressive else "concat"
            maps = grad_cam(network, inputs, output=output, classes=chosen[rows])[-1].cpu()
    return Errors(images, maps, labels[rows], chosen[rows], sure[rows])


def keep_errors(folder: Path, dataset: Dataset, recipe: Recipe, fabric: Fabric) -> None:
    """Write ``errors.npz`` to the folder of a finished run that has none."""
    path, predictions = folder / "errors.npz", read_predictions(folder)
    if predictions is not None and predictions.answers is not None and not path.exists():
        network = open_network(folder, recipe, len(dataset.classes), fabric)
        found = make_errors(network, dataset, recipe, predictions, fabric)
        _write_arrays(path, {name: values.numpy() for name, values in vars(found).items()})


def read_errors(folder: Path) -> Errors | None:
    """Read the pictures that `keep_errors` wrote; None without the file."""
    arrays = _read_arrays(folder / "errors.npz")
    return None if arrays is None else Errors(**{name: torch.from_numpy(values) for name, values in arrays.items()})


def read_pointing(folder: Path) -> dict[str, Any] | None:
    """Read the scores that `keep_activations` wrote; None without the file."""
    return read_json(folder / "pointing.json")


def _crop(dataset: Dataset, recipe: Recipe, rows: Tensor, fabric: Fabric) -> tuple[Tensor, Tensor]:
    """Central crops of some test images, as uint8 and as network inputs."""
    stored, window = dataset.test.take(rows), center_window(recipe, len(rows))
    raw = Plan.identity(len(rows), (recipe.test_side,) * 2)
    inputs = preprocess(stored, raw, torch.arange(len(rows)), window)
    return apply(stored, raw, window=window), fabric.to_device(inputs)


def _write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    replace_file(path, partial(_save, arrays=arrays))


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    with path.open("wb") as file:  # a name would get another ending
        np.savez_compressed(file, **arrays)


def _read_arrays(path: Path, *names: str) -> dict[str, Any] | None:
    """Read the arrays of a file, of which there must be those of these names; None without the file."""
    if not path.exists():
        return None
    try:
        check_file(path)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in (*names, *sorted({*arrays.files} - {*names}))}
    except Exception as error:  # numpy and zipfile raise anything from BadZipFile to MemoryError for a damaged file
        raise ValueError(
            f"{path} is damaged ({describe_error(error)}); remove it, and the same command writes it anew"
        ) from error
