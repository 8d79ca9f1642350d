"""`pmsi` from Python: public names come when they are used, and its docstring's example runs."""

from __future__ import annotations

import doctest
import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import mosaicaug
import pmsi

PUBLIC = ("PMSI", "Recipe", "Trainer", "make_backbone", "evaluate")


def test_import_brings_nothing_but_itself() -> None:
    heavy = "{'torch', 'mosaicaug', 'lightning_fabric', 'torchvision', 'numpy'}"
    script = f"import sys, pmsi; print(sorted({heavy} & set(sys.modules))); pmsi.Recipe; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "False"]  # nor do settings need torch


@pytest.mark.parametrize("name", pmsi.__all__)
def test_public_names_are_those_of_their_modules(name: str) -> None:
    value = getattr(pmsi, name)
    assert value is getattr(importlib.import_module(pmsi._HOMES[name]), name)
    assert getattr(pmsi, name) is value
    assert name in dir(pmsi)


def test_names_of_the_library() -> None:
    assert {*PUBLIC} < {*pmsi.__all__} < {*pmsi._HOMES}
    assert pmsi.__version__ == mosaicaug.__version__
    with pytest.raises(AttributeError, match="module 'pmsi' has no attribute 'Modell'"):
        _ = pmsi.Modell
    assert (Path(pmsi.__file__).parent / "py.typed").exists()


def test_the_example_of_the_docstring_runs() -> None:
    result = doctest.testmod(pmsi)
    assert result.attempted >= 10
    assert result.failed == 0
