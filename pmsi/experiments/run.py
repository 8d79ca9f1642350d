"""Trains one run in its folder, or continues it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from pmsi.data.dataset import Dataset
from pmsi.experiments.folder import check_folder, keep_result, lock_folder, make_identity, write_identity
from pmsi.experiments.source import Source
from pmsi.recipe import Recipe
from pmsi.runtime.profiler import Profile
from pmsi.training.callbacks import Callback
from pmsi.training.trainer import Trainer


def train_run(
    source: Source,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    folder: Path,
    fabric: Fabric,
    watch: Callback,
    compile: bool = False,  # noqa: A002 - torch's name
    profile: Profile | None = None,
) -> dict[str, Any]:
    """Train or continue one run; ``result.json`` appears in its folder when it is done."""
    identity = {**make_identity(source, dataset, recipe, fabric), "seed": seed}
    check_folder(folder, source, recipe, rows=False)
    weights = source.find_weights(recipe.backbone)
    how: dict[str, Any] = {"seed": seed, "identity": identity, "folder": folder, "fabric": fabric, "compile": compile}
    with lock_folder(folder, fabric):
        write_identity(folder, identity, fabric)
        trainer = Trainer(recipe, dataset, weights=weights, **how)
        evaluation = trainer.run(watch, profile)
        return keep_result(folder, dataset, trainer, evaluation)
