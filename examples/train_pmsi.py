"""A training run of RMG-PMSI and its page: `python examples/train_pmsi.py` writes train_pmsi/report.html."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pmsi import RECIPES, Session
from pmsi.experiments.results import describe_study, gather_run, load_study
from pmsi.experiments.run import train_run
from pmsi.experiments.source import Source
from pmsi.report.page import write_page
from pmsi.runtime.devices import open_fabric
from pmsi.runtime.files import write_json
from pmsi.training.callbacks import Silent

FOLDER = Path("train_pmsi")


class Lines(Silent):
    """Callback that prints a line per epoch."""

    def on_epoch(self, record: dict[str, Any]) -> None:
        losses = ", ".join(f"{loss:.2f}" for loss in record["losses"])
        print(f"epoch {record['epoch']}: losses {losses}; Concat {record['concat']:.1f} %, Mix {record['mix']:.1f} %")


# Words in eight typefaces, rendered here. For photographs: Source("folder", Path("photos")) with photos/train/CLASS and
# photos/test/CLASS, RECIPES["paper"] or RECIPES["modern"], and weights="imagenet".
source = Source("typefaces", train_per_class=12)
recipe = replace(RECIPES["demo"], resize=40, crop=36, batch_size=24, epochs=2)
session = Session(open_fabric("cpu"))

dataset = source.load(recipe)
print(dataset.protocol)

# The folder keeps checkpoints: a run that was stopped goes on from there, one that is done is not trained again.
result = train_run(source, dataset, recipe, seed=0, folder=FOLDER, session=session, callback=Lines())
print(f"after {result['seconds']:.0f} s of training: Concat {result['concat']:.1f} %, Mix {result['mix']:.1f} %")

# The page: learning curves, first inputs of the network, accuracies by class, and all settings.
facts = describe_study(source, dataset, recipe, "demo, smaller", session)
write_json(FOLDER / "results.json", gather_run(FOLDER, facts, recipe))
write_page(load_study(FOLDER), FOLDER / "report.html")
print(f"wrote {FOLDER / 'report.html'}")
