"""Tables on the pages follow the results."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import pages
from bench.throughput import tables

ROOT = Path(__file__).parents[2]
NAME = "docs/benchmarks.md"


def test_a_page_follows_the_results(throughput_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pages.PAGES[NAME], "throughput", lambda: tables.render(throughput_folder))
    page = pages.insert(NAME, (ROOT / NAME).read_text(encoding="utf-8"))
    assert pages.insert(NAME, page) == page
    path = throughput_folder / "throughput-cpu-fast-one.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"median_ms": 20.0', '"median_ms": 21.0'), encoding="utf-8"
    )
    assert pages.insert(NAME, page) != page


def test_a_page_shows_no_picture_that_is_not_there() -> None:
    shown = "images/scaling.png" in tables.render()
    assert not shown or (ROOT / "docs" / "images" / "scaling.png").exists(), "run `make tables`"


def test_a_page_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"README\.md has no place marked <!-- \w+ --> \.\.\. <!-- /\w+ -->"):
        pages.insert("README.md", "# A page\n")
