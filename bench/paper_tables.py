"""The paper's tables run again, as Markdown from what `pmsi reproduce` left in ``tables.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.results import FOLDER
from pmsi.report_parts import Part


def render(file: str, *names: str, first_only: bool = False, folder: Path = FOLDER) -> str:
    """Tables of a file of results, and the line that says what was run; all of them if none is named.

    "Not run yet." where there is no such file.

    Args:
        file: in bench/results.
        names: of tables, as `pmsi reproduce` takes them.
        first_only: leave out comparisons of a table's rows.
    """
    if not (folder / file).exists():
        return "Not run yet.\n"
    results = json.loads((folder / file).read_text(encoding="utf-8"))
    tables = results["tables"]
    texts = []
    for name in names or tables:
        parts = [Part.from_dict(part) for part in tables[name]["parts"]]
        texts += [text for part in (parts[:1] if first_only else parts) for text in _show(part)]
    return "\n\n".join([*texts, _describe(results)]) + "\n"


def _show(part: Part) -> Iterator[str]:
    yield f"*{part.caption}*"
    yield part.to_markdown().rstrip()
    if part.notes:
        yield " ".join(part.notes)


def _describe(results: dict[str, Any]) -> str:
    recipe, data, environment = results["recipe"], results["data"], results["environment"]
    heads = "paper's heads" if recipe["feature_width"] is None else _name_heads(recipe)
    seeds = _count(results["seeds"])
    weights = "random weights" if results["weights"] == "none" else "a pretrained backbone"
    return (
        f"{data['protocol']} Recipe `{recipe['name']}`: {recipe['crop']} px, {recipe['epochs']} epochs, {weights}, "
        f"{heads}, {seeds}, last epoch; {environment['device']}, {results['seconds'] / 60:.0f} minutes of training and "
        f"tests, commit {environment['commit']}."
    )


def _name_heads(recipe: dict[str, Any]) -> str:
    return f"heads of {recipe['feature_width']}/{recipe['hidden_width']}"


def _count(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
