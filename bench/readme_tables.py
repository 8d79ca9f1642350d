"""Tables of our pages from the results under bench/results: `python -m bench.readme_tables` rewrites them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from bench import engine_tables, scaling_plot, throughput_tables
from bench.results import FOLDER, ROOT
from pmsi.report import markdown_table


def render_table4(results: dict[str, Any]) -> str:
    """A table and the line that says what was run."""
    recipe, data, environment = results["recipe"], results["data"], results["environment"]
    seeds = ", ".join(str(seed) for seed in sorted({run["seed"] for row in results["rows"] for run in row["runs"]}))
    minutes = sum(run["seconds"] for row in results["rows"] for run in row["runs"]) / 60
    heads = f"heads of {recipe['feature_width']}/{recipe['hidden_width']}"
    images = f"{data['train_images']} training and {data['test_images']} test images"
    device = environment["device"]
    label = (
        f"Recipe `{recipe['name']}` on {data['name']}: {data['classes']} classes, {images}, {recipe['crop']} px, "
        f"{recipe['epochs']} epochs, {heads}, seed {seeds}, last epoch, {device}, {minutes:.0f} minutes in all."
    )
    return f"{markdown_table(results)}\n{label}\n"


def _table4_cub() -> str:
    return render_table4(json.loads((FOLDER / "table4-cub-quick.json").read_text(encoding="utf-8")))


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {
        "table4-cub": _table4_cub,
        "throughput": throughput_tables.render,
        "engine": engine_tables.render,
    },
    "docs/which_pipeline.md": {"doors": throughput_tables.render_doors},
}


def insert(page: str, text: str) -> str:
    """A page's ``text`` with its marked places filled from the results."""
    for name, render in PAGES[page].items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, _, rest = text.partition(start)
        _, _, tail = rest.partition(end)
        if not tail:
            raise ValueError(f"{page} has no place marked {start.strip()} ... {end}")
        text = head + start + "\n" + render() + "\n" + end + tail
    return text


if __name__ == "__main__":
    for page in PAGES:
        place = ROOT / page
        place.write_text(insert(page, place.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"{place} is up to date")
    if (results := throughput_tables.load("cpu")) is not None:
        picture = ROOT / "docs" / "scaling.png"
        scaling_plot.draw(results, picture)
        print(f"{picture} is drawn")
