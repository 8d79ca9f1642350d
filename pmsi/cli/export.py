"""`pmsi export`: files for other runtimes, each tested before it gets its name."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from pmsi.cli.console import Screen, end, print_whole, say
from pmsi.cli.options import Export
from pmsi.cli.session import load_data, open_session
from pmsi.deployment.check import CheckImages, read_check_images
from pmsi.deployment.classifier import make_classifier
from pmsi.deployment.export import Exported, check_installed, export_checkpoint
from pmsi.experiments.measurement import choose_source
from pmsi.experiments.results import load_study
from pmsi.models.trained import Trained, open_trained
from pmsi.report.card import write_export_card
from pmsi.report.exports import exports_table
from pmsi.runtime.session import Session


def run_export(command: Export, console: Console) -> int:
    """Export a checkpoint; prints one table, and returns 1 where a file was refused."""
    # 1. The checkpoint, and what is needed.
    if not command.to:
        raise ValueError("--to: name one format or more")
    for form in command.to:
        check_installed(form)
    checkpoint = command.checkpoint
    trained = open_trained(checkpoint)
    classifier, description = make_classifier(trained, checkpoint, command.output)
    session = open_session(command, command.compute, console)
    folder = command.out or checkpoint.parent
    stem = folder / (command.name or f"{trained.recipe.network}-{description.data}")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out: {folder} is a file; name a folder")

    # 2. Images that test the files, and training images that calibrate int8.
    with Screen(console) as screen:
        checked, calibration = None, None
        if command.check_images is not None:
            checked = read_check_images(command.check_images, description, command.workers)
        if checked is None or "onnx-int8" in command.to:
            test, calibration = _load_images(command, trained, session, screen)
            checked = checked or test
        found = export_checkpoint(
            classifier,
            description,
            list(dict.fromkeys(command.to)),
            stem,
            checked,
            calibration,
            int8=command.int8,
            accept_worse=command.accept_worse,
            progress=screen.loading,
        )

    # 3. What is said and written.
    print_whole(exports_table([one.to_dict() for one in found], checked.name).to_rich(), console)
    run = checkpoint.parent
    study = load_study(run) if checkpoint.name == "last.ckpt" and (run / "results.json").exists() else None
    for one in found:
        _say_file(one, console)
        if one.path is not None:
            write_export_card(one.to_dict(), one.path.with_name(f"{one.path.name}.md"), study)
    refused = [one for one in found if one.path is None]
    end(
        console,
        {"files": [str(one.path.resolve()) for one in found if one.path], "refused": [one.form for one in refused]},
    )
    return 1 if refused else 0


def _load_images(
    command: Export, trained: Trained, session: Session, screen: Screen
) -> tuple[CheckImages, NDArray[np.uint8]]:
    """Test images and training images of the checkpoint's data set, or of the one that was named."""
    source = choose_source(
        trained, command.checkpoint, data=command.data, root=command.root, cache=command.cache, workers=command.workers
    )
    dataset = load_data(source, trained.recipe, session, screen, trained.classes if trained.named else None)
    margin = (trained.recipe.resize - trained.recipe.test_side) // 2
    inner = slice(margin, margin + trained.recipe.test_side)
    test, train = (split.images[:, :, inner, inner].contiguous().numpy() for split in (dataset.test, dataset.train))
    return CheckImages(test, dataset.test.labels.numpy(), f"{len(test)} test images of {source.data}"), train


def _say_file(one: Exported, console: Console) -> None:
    if one.path is None:
        say(
            console,
            f"Refused: {one.form} is worse than the checkpoint, {one.check.compared.difference:+.1f} points; "
            "nothing was kept. --accept-worse keeps it, with -worse in its name.",
        )
    else:
        say(console, f"File: {one.path.resolve()}")
