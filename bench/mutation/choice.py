"""Tests that are tried on a mutant: its module's own, and others that run its statement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.mutation.mutants import Mutant

ROOT = Path(__file__).parents[2]
SLOW_FILES = (
    "test_cuda.py",
    "mosaicaug/test_workers.py",
    "test_processes.py",
    "test_resume.py",
)
SLOW_TESTS = ("::test_specialisations_compile", "::test_the_compile_gate", "::test_executed_machine_code")
AGREEMENT = "tests/mosaicaug/backends/test_agreement.py"
DOORS = "tests/mosaicaug/doors"
ALSO = {  # own tests of other names, or in the files of a module's users
    "mosaicaug/checks.py": ("tests/mosaicaug/test_augmentation.py", "tests/mosaicaug/test_targets.py"),
    "mosaicaug/kornia/container.py": (f"{DOORS}/test_kornia_operation.py",),
    "mosaicaug/kornia/operation.py": (f"{DOORS}/test_kornia.py",),
    "mosaicaug/rectangles.py": ("tests/mosaicaug/test_annotations.py",),
    "pmsi/data/dataset.py": ("tests/pmsi/data/test_cache.py", "tests/pmsi/data/test_holdout.py"),
    "pmsi/data/layouts/__init__.py": ("tests/pmsi/data/test_holdout.py",),
    **{
        f"pmsi/data/layouts/{name}.py": ("tests/pmsi/data/test_layouts.py", "tests/pmsi/data/test_download.py")
        for name in ("aircraft", "cars", "cub")
    },
    "mosaicaug/backends/triton/kernel.py": (AGREEMENT,),
    "mosaicaug/backends/triton/launch.py": (AGREEMENT, "tests/mosaicaug/backends/triton/test_kernel.py"),
    "mosaicaug/backends/triton/table.py": ("tests/mosaicaug/backends/triton/test_kernel.py",),
}


def list_test_files(path: Path) -> list[str]:
    """Test files at or below a path, from the root."""
    files = [path] if path.is_file() else sorted(path.rglob("test_*.py"))
    return [file.relative_to(ROOT).as_posix() for file in files if not file.as_posix().endswith(SLOW_FILES)]


def choose_tests(measured: dict[str, dict[str, Any]], mutant: Mutant, budget: float) -> dict[str, float]:
    """Tests that run the mutant's line, with their seconds: its module's own first, then the fastest, within a budget.

    What threads and child processes run, or an earlier test has set up, is not recorded: so the module's own tests are
    all tried, after those that run the line. For what importing runs these are also all that run any line of it.
    """
    chosen, left = dict[str, float](), {True: 0.7 * budget, False: 0.3 * budget}
    candidates = []
    for name, one in measured.items():
        own, direct = is_own(name.split("::")[0], mutant.module), runs(one["lines"], mutant)
        if own or direct or (not mutant.inside and mutant.module in one["lines"]):
            candidates.append((not own, not direct, one["seconds"], name))
    for other, _, seconds, name in sorted(candidates):
        if left[not other] > 0:
            chosen[name] = seconds
            left[not other] -= seconds + 0.002
    return chosen


def is_own(file: str, module: str) -> bool:
    """Test for a test file of a module: it has the module's name, with or without its package's, or the package's."""
    path = Path(module)
    package, stem = path.parent.name, path.stem
    names = (package,) if stem == "__init__" else (stem, f"{package}_{stem}")
    return file in ALSO.get(module, ()) or Path(file).name in {f"test_{name}.py" for name in names}


def runs(lines: dict[str, list[int]], mutant: Mutant) -> bool:
    """Test for a mutant's statement among the lines that were run."""
    first, last = mutant.statement
    return any(first <= line <= last for line in lines.get(mutant.module, ()))
