"""Where files are: a test file for every module, short modules, tests that stand alone, types for users."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from bench.source_tables import read_imports

ROOT = Path(__file__).parents[2]
PACKAGES = ("mosaicaug", "pmsi")
DOORS = {"kornia", "dali", "timm", "torchvision", "huggingface", "arrays"}  # tested door by door, each in one file
LINES = 300


def list_untested(root: Path) -> list[str]:
    """Modules of the packages without a test file of their name in the mirrored folder of tests.

    A package whose ``__init__`` defines something is tested beside or inside its folder.
    """
    return [
        path.relative_to(root).as_posix()
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
        if has_code(path) and not any((root / test).is_file() for test in list_test_files(path.relative_to(root)))
    ]


def list_test_files(module: Path) -> list[Path]:
    """Paths that the test file of a module may have."""
    package, *folders, name = module.with_suffix("").parts
    tests = Path("tests", package)
    door = (folders or [name])[0]
    if package == "mosaicaug" and door in DOORS:
        return [tests / "doors" / f"test_{door}.py"]
    if name != "__init__":
        return [tests.joinpath(*folders) / f"test_{name}.py"]
    own = f"test_{folders[-1] if folders else package}.py"
    return [tests.joinpath(*folders[:-1]) / own, tests.joinpath(*folders) / own]


def has_code(path: Path) -> bool:
    """Test for more than a docstring, imports and names such as ``__all__``; ``__main__`` only calls."""
    if path.name == "__main__.py":
        return False
    return not all(
        isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Assign) and all(ast.unparse(target).startswith("__") for target in node.targets))
        for node in ast.parse(path.read_text(encoding="utf-8")).body
    )


def list_long_modules(root: Path) -> list[str]:
    """Modules of the packages over `LINES` lines."""
    return [
        f"{path.relative_to(root).as_posix()}: {count} lines"
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > LINES
    ]


def list_borrowing_tests(root: Path) -> list[str]:
    """Test files that import from a test file; what tests share lives in tests/helpers."""
    return [
        f"{path.relative_to(root).as_posix()}: {module} {name or ''}".rstrip()
        for path in sorted((root / "tests").rglob("*.py"))
        for module, name in read_imports(path, root)
        if module.split(".")[0] == "tests" and any(map(is_test, [*module.split("."), name or ""]))
    ]


def is_test(name: str) -> bool:
    """Test for the name of a test file."""
    return name.startswith("test_")


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A copy of the packages and their tests to plant faults in."""
    for folder in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_every_module_has_a_test_file_of_its_name() -> None:
    assert list_untested(ROOT) == []


@pytest.mark.parametrize(
    ("module", "wrong_test", "right_test"),
    [
        ("mosaicaug/new.py", "tests/test_new.py", "tests/mosaicaug/test_new.py"),
        ("pmsi/data/new.py", "tests/pmsi/test_new.py", "tests/pmsi/data/test_new.py"),
        ("pmsi/new/__init__.py", "tests/pmsi/test___init__.py", "tests/pmsi/test_new.py"),
        ("pmsi/data/new/__init__.py", "tests/pmsi/test_new.py", "tests/pmsi/data/new/test_new.py"),
    ],
)
def test_a_module_without_its_test_is_seen(planted: Path, module: str, wrong_test: str, right_test: str) -> None:
    before = list_untested(planted)
    for name in (module, wrong_test):
        (planted / name).parent.mkdir(parents=True, exist_ok=True)
        (planted / name).write_text("def work() -> None: ...\n")
    assert list_untested(planted) == sorted([*before, module])
    (planted / right_test).parent.mkdir(parents=True, exist_ok=True)
    (planted / right_test).touch()
    assert list_untested(planted) == before


def test_a_door_without_its_test_is_seen(planted: Path) -> None:
    (planted / "tests/mosaicaug/doors/test_kornia.py").unlink()
    assert {"mosaicaug/kornia/__init__.py", "mosaicaug/kornia/operation.py"} <= set(list_untested(planted))


def test_what_only_imports_needs_no_test(tmp_path: Path) -> None:
    path = tmp_path / "__init__.py"
    path.write_text('"""A package."""\n\nfrom os import path\n\n__all__ = ["path"]\n__version__ = "1"\n')
    assert not has_code(path)
    path.write_text(path.read_text() + "value = 1\n")
    assert has_code(path)


def test_modules_are_short(planted: Path) -> None:
    assert list_long_modules(ROOT) == []
    path = planted / "pmsi/paper.py"
    count = len(path.read_text().splitlines())
    path.write_text(path.read_text() + "# a line\n" * (LINES - count))
    assert list_long_modules(planted) == []
    path.write_text(path.read_text() + "# a line\n")
    assert list_long_modules(planted) == [f"pmsi/paper.py: {LINES + 1} lines"]


def test_no_test_imports_from_a_test() -> None:
    assert list_borrowing_tests(ROOT) == []


@pytest.mark.parametrize(
    "line",
    [
        "from tests.project.test_imports import ROOT",
        "from tests.project import test_imports",
        "import tests.project.test_imports",
        "from .test_imports import ROOT",
    ],
)
def test_a_test_that_imports_from_a_test_is_seen(planted: Path, line: str) -> None:
    before = list_borrowing_tests(planted)
    (planted / "tests/project/test_new.py").write_text(f"{line}\n")
    [wrong] = [found for found in list_borrowing_tests(planted) if found not in before]
    assert wrong.startswith("tests/project/test_new.py: tests.project")


@pytest.mark.parametrize("package", PACKAGES)
def test_types_reach_users(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
