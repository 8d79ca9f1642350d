"""README and the pages of docs/: their code runs, their tables are current, their links hold, and the site is built."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mosaicaug
import pmsi
from bench import pages
from pmsi.cli import options
from pmsi.data import layouts
from pmsi.recipe import networks
from pmsi.training import phases

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n\n)?^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def list_code(page: str) -> list[str]:
    """Python blocks of a page, without those that are marked as not run."""
    return [code for mark, code in BLOCK.findall(read(page)) if not mark]


def run_code(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the blocks of a page one after another in a folder with a picture, as a reader would in one script."""
    monkeypatch.chdir(folder)
    Image.effect_mandelbrot((203, 131), (-2, -1, 1, 1), 50).convert("RGB").save("my_picture.jpg")
    script = ModuleType("script")
    monkeypatch.setitem(sys.modules, "script", script)
    for code in list_code(page):
        exec(code, vars(script))
    return vars(script)


@pytest.fixture(autouse=True)
def same_tables() -> Iterator[None]:
    """Take out what pages add to the tables of networks, augmentations and layouts."""
    tables: list[Any] = [networks.NETWORKS, phases.AUGMENTATIONS, layouts.LAYOUTS]
    kept = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, kept, strict=True):
        table.clear()
        table.update(entries)


@pytest.mark.parametrize("page", [page for page in PAGES if list_code(page)])
def test_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_code(page, tmp_path, monkeypatch)


def test_readme_makes_a_mosaic_of_ones_own_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_code("README.md", tmp_path, monkeypatch)
    picture, mosaic = (Image.open(name).convert("RGB") for name in ("my_picture.jpg", "my_mosaic.png"))
    assert mosaic.size == picture.size
    assert mosaic.tobytes() != picture.tobytes()
    colours = [np.unique(np.asarray(image).reshape(-1, 3), axis=0, return_counts=True) for image in (mosaic, picture)]
    assert all(np.array_equal(*pair) for pair in zip(*colours, strict=True)), "the same pixels in other places"
    assert torch.equal(names["restored"], names["images"])
    assert names["batch"].shape == (8, 3, 196, 196)


@pytest.mark.parametrize("page", pages.PAGES)
def test_tables_are_those_of_results_and_source(page: str) -> None:
    assert pages.insert(page, read(page)) == read(page), "run `make tables`"


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_are_commands(page: str) -> None:
    """Every `pmsi ...` of a block is parsed; it is not run."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", read(page), re.DOTALL | re.MULTILINE)
    lines = "".join(block for language, block in blocks if not language).replace("\\\n", " ").splitlines()
    for words in (shlex.split(line, comments=True) for line in lines):
        if "pmsi" in words[:4]:
            options.parse(words[words.index("pmsi") + 1 :])


def test_readme_is_a_front_page() -> None:
    assert len(read("README.md").splitlines()) <= 130
    untimed = "**GPU**: not measured yet." in read("docs/benchmarks.md").partition("<!-- /throughput -->")[0]
    assert ("beside other libraries it was not timed there" in read("README.md")) == untimed


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_of_the_repository_hold(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", read(page), flags=re.DOTALL))
    missing = [link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    named = re.findall(r"`((?:mosaicaug|pmsi|bench|tests|examples|docs)/[\w/.]+)`", read(page))
    assert not [file for file in named if not (ROOT / file).exists()]


def test_the_architecture_page_names_every_file() -> None:
    page = read("docs/architecture.md")
    files = [path for package in ("mosaicaug", "pmsi") for path in (ROOT / package).rglob("*.py")]
    names = [path.relative_to(ROOT).as_posix() for path in files if path.name != "__init__.py"]
    assert not [name for name in names if f"`{name}`" not in page]


def test_every_public_name_is_in_the_reference() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/api").glob("*.md"))
    documented = set(re.findall(r"^::: mosaicaug\.(\w+)", text, re.MULTILINE))
    assert documented >= {*mosaicaug.__all__, "kornia", "dali", "timm", "torchvision"}
    assert {*re.findall(r"^::: pmsi\.(\w+)", text, re.MULTILINE)} >= {*pmsi.__all__} - {"RECIPES"}


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r": ([\w/]+\.md)$", read("mkdocs.yml"), re.MULTILINE)
    assert sorted(listed) == sorted(page.removeprefix("docs/") for page in PAGES if page != "README.md")


def test_the_site_is_built_without_a_warning_and_needs_no_network(tmp_path: Path) -> None:
    for name in ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers.python"):
        if importlib.util.find_spec(name.split(".")[0]) is None:
            pytest.skip(f"{name} is missing: pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    built = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    assert built >= {page.removeprefix("docs/").replace(".md", ".html") for page in PAGES if page != "README.md"}
    for path in tmp_path.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=\"?(https?://[^\" >]+)", path.read_text())
        assert not loaded, path.name
    for path in tmp_path.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*['\"]?https?://", path.read_text()), path.name
    reference = (tmp_path / "api" / "augmentations.html").read_text(encoding="utf-8")
    assert "smallest patch" in reference, "docstrings are there"
    assert "<blockquote>" not in reference, "doctests are code"


def test_the_hook_turns_links_to_examples_into_links_to_the_gallery() -> None:
    pytest.importorskip("griffe", reason="griffe is missing: pip install '.[docs]'")
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="which_pipeline.md"))
    text = hooks.on_page_markdown("see [it](../examples/quickstart.py)", page=page)
    assert text == "see [quickstart.py](gallery.md#quickstart)"
    page.file.src_uri = "gallery.md"
    shown = hooks.on_page_markdown("[examples/quickstart.py](../examples/quickstart.py)", page=page)
    assert shown.startswith('??? example "examples/quickstart.py"\n\n    ```python\n    """')
