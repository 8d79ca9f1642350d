"""Test of a checkpoint: the images it is tested on, its accuracy, and the values of its page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pmsi.data.dataset import DataName, Dataset
from pmsi.data.storage import make_store
from pmsi.evaluation.accuracy import Evaluation, evaluate
from pmsi.evaluation.robustness import measure_robustness
from pmsi.experiments.folder import lock_folder, open_network
from pmsi.experiments.pictures import make_errors
from pmsi.experiments.results import Study, describe_study, describe_test
from pmsi.experiments.source import Source
from pmsi.models.cost import measure_cost
from pmsi.models.trained import Trained
from pmsi.recipe import Recipe
from pmsi.runtime.files import write_json
from pmsi.runtime.session import Session


def choose_source(
    trained: Trained,
    path: Path,
    *,
    data: DataName | None = None,
    root: Path | None = None,
    cache: Path | None = Source.cache,
    workers: int | None = None,
) -> Source:
    """Choose the images of a checkpoint: those of its run, or others.

    Args:
        trained: the checkpoint.
        path: of the checkpoint, for messages.
        data, root: other images; None takes what the checkpoint says.
        cache, workers: as in training.

    Raises:
        ValueError: the checkpoint does not say what it was trained on, and no other images are named.
    """
    identity = trained.identity
    name = data or identity.get("data")
    if name is None:
        raise ValueError(f"--data: {path} does not say what it was trained on; it is of no run of pmsi")
    own = name == identity.get("data")
    return Source(
        data=name,
        root=root or (Path(identity["root"]) if identity.get("root") else None),
        hold_out=identity.get("hold_out") if own else None,
        skip_unreadable=bool(identity.get("skip_unreadable")),
        cache=cache,
        workers=workers,
    )


def measure_network(trained: Trained, dataset: Dataset, source: Source, session: Session) -> tuple[Evaluation, Study]:
    """Test a network on the test images of ``dataset``, and gather what the page of the test shows.

    Raises:
        ValueError: the data set has another number of classes than the network.
    """
    if len(dataset.classes) != trained.identity["classes"]:
        known = trained.identity["classes"]
        raise ValueError(f"the network knows {known} classes, {dataset.name} has {len(dataset.classes)}")
    recipe, labels = trained.recipe, dataset.test.labels
    found = evaluate(trained.network, dataset.test, recipe, session)
    facts = describe_study(source, dataset, recipe, "of the checkpoint", session)
    facts["cost"] = measure_cost(trained.network, recipe.test_side)
    facts["weights"] = trained.identity.get("weights", "unknown")
    study = describe_test(facts, recipe, trained.identity.get("seed", 0), found, labels)
    if session.fabric.is_global_zero:
        errors = make_errors(trained.network, dataset, recipe, study.predictions["."], session.fabric)
        study = replace(study, errors=errors)
    return found, study


def keep_robustness(folder: Path, recipe: Recipe, dataset: Dataset, session: Session) -> None:
    """Write accuracies under each corruption to ``robustness.json``, once."""
    path = folder / "robustness.json"
    with lock_folder(folder, session, wait=True):
        if session.processes.max_over_processes(int(not path.exists())):
            network = open_network(folder, recipe, len(dataset.classes), session.fabric)
            store = make_store(dataset.test, session.fabric.device)
            found = measure_robustness(network, store, recipe, session)
            evaluations = {"clean": found.clean, **found.corrupted}
            if session.fabric.is_global_zero:
                kept = {name: {"concat": one.concat, "mix": one.mix} for name, one in evaluations.items()}
                write_json(path, kept)
            session.fabric.barrier()
