"""Tables on the pages follow the results."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import pages
from bench.throughput import tables

ROOT = Path(__file__).parents[2]


def test_readme_follows_the_results(throughput_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pages.PAGES["README.md"], "throughput", lambda: tables.render(throughput_folder))
    readme = pages.insert("README.md", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert pages.insert("README.md", readme) == readme
    path = throughput_folder / "throughput-cpu-fast-one.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"median_ms": 20.0', '"median_ms": 21.0'), encoding="utf-8"
    )
    assert pages.insert("README.md", readme) != readme


def test_readme_shows_no_picture_that_is_not_there() -> None:
    shown = "docs/scaling.png" in tables.render()
    assert not shown or (ROOT / "docs" / "scaling.png").exists(), "run `make tables`"


def test_a_page_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"README\.md has no place marked <!-- \w+ --> \.\.\. <!-- /\w+ -->"):
        pages.insert("README.md", "# A page\n")
