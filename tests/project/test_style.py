"""First lines of docstrings name the thing or what it does, and arguments are not hidden in dictionaries."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.source_tables import list_nodes

ROOT = Path(__file__).parents[2]
OPENINGS = re.compile(
    r"(what|where|who|whose|which|of|whether|how|as|with|if|when|why|the same|it|its|they|their)\b", re.IGNORECASE
)


def list_riddles(root: Path) -> list[str]:
    """Docstrings of modules and public names whose first line opens with a word that names nothing."""
    return [
        f"{path.relative_to(root).as_posix()} {name}: {line}"
        for package in ("mosaicaug", "pmsi", "bench")
        for path in sorted((root / package).rglob("*.py"))
        for name, line in read_first_lines(read_module(path))
        if OPENINGS.match(line)
    ]


def read_module(path: Path) -> ast.Module:
    tree = list_nodes(path)[0]
    assert isinstance(tree, ast.Module)
    return tree


def read_first_lines(tree: ast.Module | ast.ClassDef, above: str = "") -> Iterator[tuple[str, str]]:
    """First docstring lines of a module and of its public classes, methods and functions, with their names."""
    if isinstance(tree, ast.Module) and (text := ast.get_docstring(tree)):
        yield "", text.splitlines()[0]
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            if text := ast.get_docstring(node):
                yield above + node.name, text.splitlines()[0]
            if isinstance(node, ast.ClassDef):
                yield from read_first_lines(node, f"{above}{node.name}.")


def list_hidden_arguments(root: Path) -> list[str]:
    """Dictionaries named ``how`` or ``options`` of the packages: what they carry is not checked by mypy."""
    return [
        f"{path.relative_to(root).as_posix()}:{node.lineno} {name}"
        for package in ("mosaicaug", "pmsi")
        for path in sorted((root / package).rglob("*.py"))
        for node in list_nodes(path)
        if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None
        if (name := ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else node.arg) in ("how", "options")
        if re.fullmatch(r"(dict|Mapping)\[str, Any\]", ast.unparse(node.annotation).strip("'"))
    ]


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A copy of the code to plant faults in."""
    for package in ("mosaicaug", "pmsi", "bench"):
        ignored = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    return tmp_path


def test_docstrings_begin_with_a_noun_or_a_verb() -> None:
    assert list_riddles(ROOT) == []


@pytest.mark.parametrize("line", ["What it is.", "of a run", "The same, twice.", "Whether it works.", "Its maker."])
@pytest.mark.parametrize(
    ("module", "code", "name"),
    [
        ("mosaicaug/new.py", '"""LINE"""\n', ""),
        ("pmsi/data/new.py", 'def work() -> None:\n    """LINE"""\n', "work"),
        (
            "bench/new.py",
            'class Work:\n    """Work."""\n\n    def do(self) -> None:\n        """LINE\n\n        More."""\n',
            "Work.do",
        ),
    ],
)
def test_a_riddle_is_seen(planted: Path, module: str, code: str, name: str, line: str) -> None:
    before = list_riddles(planted)
    (planted / module).write_text(code.replace("LINE", line))
    assert [riddle for riddle in list_riddles(planted) if riddle not in before] == [f"{module} {name}: {line}"]


def test_other_words_may_begin_a_docstring() -> None:
    for line in ("Ways to go.", "Ratio of times.", "Offset.", "Thermal noise.", "Item of a list.", "Assigns a share."):
        assert not OPENINGS.match(line), line


def test_arguments_are_not_hidden_in_dictionaries() -> None:
    assert list_hidden_arguments(ROOT) == []


@pytest.mark.parametrize(
    "line", ["how: dict[str, Any] = {}", "options: dict[str, Any]", "def work(how: dict[str, Any]) -> None: ..."]
)
def test_a_hidden_argument_is_seen(planted: Path, line: str) -> None:
    before = list_hidden_arguments(planted)
    (planted / "pmsi/new.py").write_text(f"def run() -> None:\n    {line}\n")
    [found] = [hidden for hidden in list_hidden_arguments(planted) if hidden not in before]
    assert found.startswith("pmsi/new.py:2 ")
