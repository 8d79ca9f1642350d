"""Tables of README from the results under bench/results: `python -m bench.readme_tables` rewrites them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pmsi.report import markdown_table

ROOT = Path(__file__).parents[1]
RESULTS = {"table4-cub": ROOT / "bench" / "results" / "table4-cub-quick.json"}


def render(results: dict[str, Any]) -> str:
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


def insert(readme: str) -> str:
    """README with its marked places filled from the results."""
    for name, path in RESULTS.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, _, rest = readme.partition(start)
        _, _, tail = rest.partition(end)
        if not tail:
            raise ValueError(f"README.md has no place marked {start.strip()} ... {end}")
        readme = head + start + "\n" + render(json.loads(path.read_text(encoding="utf-8"))) + "\n" + end + tail
    return readme


if __name__ == "__main__":
    place = ROOT / "README.md"
    place.write_text(insert(place.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{place} is up to date")
