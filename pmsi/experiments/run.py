"""Trains one run in its folder, or continues it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pmsi.data.dataset import Dataset
from pmsi.experiments.folder import check_folder, keep_result, lock_folder, make_identity, write_identity
from pmsi.experiments.pictures import keep_preview
from pmsi.experiments.source import Source
from pmsi.recipe import Recipe
from pmsi.runtime.files import expand_home
from pmsi.runtime.profiler import Profile
from pmsi.runtime.session import Session
from pmsi.training.callbacks import Callback
from pmsi.training.trainer import Trainer


def train_run(
    source: Source,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    folder: Path,
    session: Session,
    callback: Callback,
    profile: Profile | None = None,
) -> dict[str, Any]:
    """Train or continue one run.

    Args:
        source, dataset: of the images; ``dataset`` is what ``source`` loaded at the recipe's size.
        recipe, seed: of the run.
        folder: gets ``config.json``, checkpoints, ``metrics.jsonl``, and when the run is done ``preview.npz`` (the
            first inputs of the network), ``predictions.json`` and ``result.json``.
        session: device, precision and processes.
        callback: is called after mini-batches and epochs.
        profile: records some mini-batches.

    Returns:
        What ``result.json`` holds.

    Raises:
        FolderBusyError: another process trains there.
        ValueError: the folder belongs to another run, or holds other files.
    """
    folder = expand_home(folder)
    check_folder(folder, source, recipe, rows=False)
    identity = {**make_identity(source, dataset, recipe, session.fabric), "seed": seed}
    weights = source.find_weights(recipe.backbone)
    with lock_folder(folder, session):
        identity = write_identity(folder, identity, session)
        trainer = Trainer(
            recipe, dataset, weights=weights, seed=seed, identity=identity, folder=folder, session=session
        )
        evaluation = trainer.run(callback, profile)
        if session.fabric.is_global_zero:
            keep_preview(folder, dataset, recipe, seed)
        return keep_result(folder, dataset, trainer, evaluation, session)
