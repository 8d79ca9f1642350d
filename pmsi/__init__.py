"""RMG-PMSI (Wu et al. 2021): progressive training of a multi-stage network on recursive mosaics.

Public names are imported when they are first used, so that ``import pmsi`` takes milliseconds.

Examples:
    A network and one prediction per image:

    >>> import torch
    >>> from pmsi import PMSI, Dataset, Recipe, Trainer, evaluate, make_backbone
    >>> network = PMSI(make_backbone("mobilenet_v2"), num_classes=2)
    >>> images = torch.randint(0, 256, (12, 3, 36, 36), dtype=torch.uint8)
    >>> network.eval()(images[:2] / 255).mix.argmax(1).shape
    torch.Size([2])

    Training on images and labels in memory, and a test:

    >>> labels = torch.arange(12) % 2
    >>> dataset = Dataset.from_tensors((images[:8], labels[:8]), (images[8:], labels[8:]))
    >>> recipe = Recipe(resize=36, crop=32, batch_size=4, epochs=1, freeze_epochs=0)
    >>> trainer = Trainer(recipe, dataset)
    >>> result = trainer.run()
    >>> len(trainer.history[0]["losses"]), len(result.mix_predictions)
    (4, 4)
    >>> evaluate(trainer.network, dataset.test, recipe).mix == result.mix
    True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmsi.data.dataset import Dataset, load_dataset
    from pmsi.evaluation.accuracy import Evaluation, evaluate
    from pmsi.models.backbones import make_backbone
    from pmsi.models.base import Network
    from pmsi.models.pmsi import PMSI
    from pmsi.models.registry import make_network
    from pmsi.recipe import RECIPES, Recipe
    from pmsi.runtime.session import Session
    from pmsi.training.trainer import Trainer

    __version__: str

__all__ = [
    "PMSI",
    "RECIPES",
    "Dataset",
    "Evaluation",
    "Network",
    "Recipe",
    "Session",
    "Trainer",
    "evaluate",
    "load_dataset",
    "make_backbone",
    "make_network",
]

_HOMES = {
    "PMSI": "pmsi.models.pmsi",
    "RECIPES": "pmsi.recipe",
    "Dataset": "pmsi.data.dataset",
    "Evaluation": "pmsi.evaluation.accuracy",
    "Network": "pmsi.models.base",
    "Recipe": "pmsi.recipe",
    "Session": "pmsi.runtime.session",
    "Trainer": "pmsi.training.trainer",
    "evaluate": "pmsi.evaluation.accuracy",
    "load_dataset": "pmsi.data.dataset",
    "make_backbone": "pmsi.models.backbones",
    "make_network": "pmsi.models.registry",
    "__version__": "mosaicaug",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pmsi' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
