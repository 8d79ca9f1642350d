"""Two rows of Table IV compared from Python, with table and page: `python examples/compare_augmentations.py`.

Half a minute on one core, so far too short for accuracies to mean anything; `pmsi compare` trains the rows for longer.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

from rich.console import Console

from pmsi.cli.console import Screen
from pmsi.experiments.results import load_study
from pmsi.experiments.source import Source
from pmsi.experiments.study import study
from pmsi.experiments.tables import Row
from pmsi.recipe import RECIPES
from pmsi.report.page import write_page
from pmsi.report.study_tables import list_tables
from pmsi.runtime.devices import open_fabric
from pmsi.runtime.session import Session

# 1. Data: twelve typefaces, two training images of each; weights are random.
source = Source("typefaces", train_per_class=2)
load = cache(lambda row: row.source.load(row.recipe))

# 2. Training: the recipe that all rows start from. Every field of `Recipe` can be changed.
recipe = replace(RECIPES["demo"], resize=36, crop=32, epochs=1, batch_size=8, feature_width=16, hidden_width=8)

# 3. The study. Finished runs are kept: run this again with more methods or seeds, and only those are trained.
folder = Path("runs/compare_augmentations")
console = Console()
with Screen(console) as screen:
    study(
        ("table4",),
        Row(recipe, source),
        load,
        "example",
        methods=("none", "rmg"),
        seeds=(0,),
        folder=folder,
        session=Session(open_fabric("cpu")),
        watch=lambda title, chosen, _: screen.watch(title, chosen),
    )

# 4. Results as values, in the terminal and as one page.
found = load_study(folder)
for table in list_tables(found)["table4"]:
    console.print(table.to_rich())
write_page(found, folder / "report.html")
print(f"Report: {(folder / 'report.html').resolve()}")
