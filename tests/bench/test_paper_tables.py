"""Tables of the paper from files of results: chosen by name, with the line that says what was run."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import paper_tables
from bench.results import FOLDER

BIRDS = "reproduce-cub.json"


def test_tables_are_chosen_by_name() -> None:
    one, both = (paper_tables.render(BIRDS, *names) for names in (["table3"], ["table3", "table4"]))
    assert both.startswith(one.splitlines()[0])
    assert len(both) > len(one)
    assert one.splitlines()[-1] == both.splitlines()[-1]  # what was run
    assert "; a pretrained backbone, seed 0, last epoch; " in one.splitlines()[-1]
    assert len(paper_tables.render(BIRDS, "table3", first_only=True)) < len(one)


def test_what_was_not_run_says_so(tmp_path: Path) -> None:
    assert paper_tables.render("none.json", folder=tmp_path) == "Not run yet.\n"
    assert paper_tables.render(BIRDS, "table99") == "Not run yet.\n"
    assert paper_tables.render_differences("none.json", folder=tmp_path) == "Not run yet.\n"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("reproduce-*.json")), ids=lambda path: path.stem)
def test_every_file_of_results_can_be_shown(path: Path) -> None:
    assert "\n|---|" in paper_tables.render(path.name)
    assert "\n|---|" in paper_tables.render_differences(path.name)
