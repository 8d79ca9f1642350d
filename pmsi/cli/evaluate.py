"""`pmsi evaluate`: test of a checkpoint, and its page."""

from __future__ import annotations

from rich.console import Console

from pmsi.cli.console import Screen, end, say
from pmsi.cli.options import Evaluate
from pmsi.cli.session import load_data, open_session
from pmsi.experiments.measurement import choose_source, measure_network
from pmsi.models.trained import open_trained
from pmsi.report.mistakes import write_confusions
from pmsi.report.page import write_page


def run_evaluate(command: Evaluate, console: Console) -> None:
    """Test a checkpoint; prints accuracies, and writes the page and the confusions."""
    # 1. The checkpoint says what was trained, and on what.
    checkpoint = command.checkpoint
    trained = open_trained(checkpoint)
    source = choose_source(
        trained, checkpoint, data=command.data, root=command.root, cache=command.cache, workers=command.workers
    )
    session = open_session(command, command.compute, console)
    page = command.page or checkpoint.parent / f"evaluate-{source.data}.html"
    if page.name == "report.html" and page.with_name("config.json").exists():
        raise ValueError(f"--page: {page} is the report of a run; choose another name")

    # 2. The test.
    with Screen(console) as screen:
        dataset = load_data(source, trained.recipe, session, screen, trained.classes if trained.named else None)
    if not trained.named:  # of an earlier version, which did not keep them
        say(
            console,
            f"{checkpoint} has no names of its classes: that {source.data} has them in its order is not checked",
        )
    found, study = measure_network(trained, dataset, source, session)

    # 3. What is said and written.
    for k, accuracy in enumerate(found.stages, 6 - trained.recipe.stages):
        console.print(f"Stage {k}  {accuracy:.2f} %")
    images = len(dataset.test.labels)
    console.print(f"Concat   {found.concat:.2f} %\nMix      {found.mix:.2f} % of {images} test images")
    table = page.with_name(f"{page.stem}-confusions.csv")
    if session.fabric.is_global_zero:
        write_page(study, page)
        write_confusions(study, table)
    say(console, f"Page: {page.resolve()}")
    say(console, f"Confusions: {table.resolve()}")
    values = {"concat": found.concat, "mix": found.mix, "stages": list(found.stages)}
    end(console, {**values, "page": str(page.resolve()), "confusions": str(table.resolve())})
