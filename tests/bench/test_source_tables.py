"""Tables made from the source: fields of recipes, levels of packages, one line for each file."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import source_tables


def test_fields_of_recipes_are_explained() -> None:
    table = source_tables.render_recipe_fields()
    assert "| `epochs` | int | 150 | `quick` 4, `demo` 4, `few-shot` 140 | Passes over the training images. |" in table
    assert "| `chain` | independent, shared | independent |" in table


def test_levels_count_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "house"
    (package / "cellar").mkdir(parents=True)
    (package / "cellar" / "__init__.py").write_text("import house.ground.stone\n")
    (package / "attic.py").write_text("from house import cellar, ground\nfrom house.attic import roof\n")
    (package / "ground.py").write_text("import math\n")
    monkeypatch.setattr(source_tables, "ROOT", tmp_path)
    text = source_tables.render_ladder("house")
    assert "`house`: 3 files and folders on 3 levels, 3 arrows." in text
    assert "| 3 | `attic` | cellar, ground |\n| 2 | `cellar` | ground |\n| 1 | `ground` | - |" in text
    (package / "ground.py").write_text("import house.attic\n")
    with pytest.raises(ValueError, match="cycle"):
        source_tables.render_ladder("house")


def test_files_are_described_by_their_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "house" / "cellar").mkdir(parents=True)
    (tmp_path / "house" / "cellar" / "wine.py").write_text('"""Bottles of\nwine.\n\nAnd more."""\n')
    (tmp_path / "house" / "empty.py").write_text("")
    monkeypatch.setattr(source_tables, "ROOT", tmp_path)
    assert source_tables.render_files("house").splitlines()[2:] == ["| `house/cellar/wine.py` | Bottles of wine. |"]
