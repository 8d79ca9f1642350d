"""A run small enough for a test: random images of 3 classes, narrow heads, a backbone of five small convolutions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pmsi.data.dataset import Dataset
from pmsi.data.storage import Split
from pmsi.experiments.folder import make_identity
from pmsi.experiments.source import Source
from pmsi.models.backbones import Backbone
from pmsi.recipe import METHODS, Recipe
from pmsi.runtime.devices import Precision, open_fabric
from pmsi.runtime.session import Session
from pmsi.training.trainer import Trainer

RECIPE = Recipe(
    resize=36,
    crop=32,
    feature_width=16,
    hidden_width=8,
    batch_size=4,
    epochs=2,
    freeze_epochs=0,
    lr_backbone=1e-3,
    lr_new=1e-2,
)
# Every augmentation as published, and RMG with all that candidates change in the step.
CHANGES: list[dict[str, Any]] = [
    *({"augmentation": method} for method in METHODS),
    {
        "optimizer": "adamw",
        "layer_decay": 0.7,
        "mosaic_until": 0.5,
        "concat_recursions": 1,
        "distill_weight": 1.0,
        "label_smoothing": 0.1,
        "deeper_heads": False,
    },
]
BATCHES = 3  # of one epoch
TIMES = ("seconds", "waited", "speed", "created", "environment")  # what two equal runs may differ in


def make_dataset(*, seed: int = 0, train_images: int = 12, side: int = 36) -> Dataset:
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> Split:
        images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
        return Split(images, torch.arange(count) % 3)

    return Dataset("typefaces", ("a", "b", "c"), draw(train_images), draw(6), "Random pixels.")


def make_backbone(
    name: str = "mobilenet_v2", weights: str = "none", *, width_mult: float = 1.0, stem_stride: Literal[1, 2] = 2
) -> Backbone:
    """Stands in for MobileNetV2 with the same halvings and milliseconds a step."""
    assert name == "mobilenet_v2"
    assert (weights, width_mult) == ("none", 1)
    widths, strides = (3, 4, 6, 8, 10, 12), (stem_stride, 2, 2, 2, 2)
    stages: list[nn.Module] = [
        nn.Sequential(nn.Conv2d(widths[k], widths[k + 1], 3, stride, 1), nn.BatchNorm2d(widths[k + 1]), nn.ELU())
        for k, stride in enumerate(strides)
    ]
    return Backbone(stages, widths[1:])


def make_identity_backbone(blocks: int = 1) -> Backbone:
    """A backbone whose maps are the images themselves, three channels of them."""
    last = nn.Sequential(*(nn.Identity() for _ in range(blocks)))
    return Backbone([*(nn.Identity() for _ in range(4)), last], (3,) * 5)


def make_fabric() -> Fabric:
    return open_fabric("cpu")


def make_session(precision: Precision = "32", *, compile: bool = False) -> Session:  # noqa: A002 - torch's name
    return Session(open_fabric("cpu", precision), compile)


def make_trainer(
    folder: Path,
    recipe: Recipe = RECIPE,
    *,
    seed: int = 0,
    dataset: Dataset | None = None,
    session: Session | None = None,
) -> Trainer:
    dataset, session = dataset or make_dataset(), session or make_session()
    identity = {**make_identity(Source(), dataset, recipe, session.fabric), "seed": seed}
    return Trainer(recipe, dataset, weights="none", seed=seed, identity=identity, folder=folder, session=session)


class Watch:
    """Silent, and presses Ctrl-C at batch ``stop[1]`` of epoch ``stop[0]``, both counted from 1."""

    def __init__(self, stop: tuple[int, int] | None = None) -> None:
        self.stop, self.done, self.batches = stop, 0, 0

    def on_batch(self, done: int, total: int, losses: Sequence[float]) -> None:
        assert total == BATCHES
        assert len(losses) in (0, 4)  # none before the first copy from a GPU
        self.batches += 1
        if (self.done + 1, done) == self.stop:
            raise KeyboardInterrupt

    def on_epoch(self, record: dict[str, Any]) -> None:
        self.done += 1
        assert record["epoch"] >= self.done


def list_leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in nested dicts and lists but `TIMES`, each with its place; tensors as their bytes."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key not in TIMES:
                yield from list_leaves(value, f"{name}.{key}")
    elif isinstance(tree, list | tuple):
        yield f"{name} length", len(tree)
        for index, value in enumerate(tree):
            yield from list_leaves(value, f"{name}.{index}")
    elif isinstance(tree, Tensor):
        yield name, (tree.dtype, tuple(tree.shape), tree.contiguous().numpy().tobytes())
    else:
        yield name, tree


def name_differences(left: Any, right: Any) -> list[str]:
    """Places where two trees are not the same bits."""
    a, b = dict(list_leaves(left)), dict(list_leaves(right))
    return [name for name in (a | b) if name not in a or name not in b or a[name] != b[name]]


def read_folder(folder: Path) -> dict[str, str]:
    """Every file with a digest of its bytes."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def catch_inputs(module: nn.Module) -> list[Tensor]:
    """What the module is given from now on."""
    seen: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
    return seen


def flatten_state(trainer: Trainer) -> Tensor:
    """Weights and batch-norm statistics of a trainer's network as one vector, float64."""
    return torch.cat([value.detach().flatten().double() for value in trainer.network.state_dict().values()])
