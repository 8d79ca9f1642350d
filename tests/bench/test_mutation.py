"""Mutants that are planted, and the count of those that are caught."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from bench.mutation import server
from bench.mutation.mutants import draw_mutants, list_mutants

ROOT = Path(__file__).parents[2]


def change(source: str) -> list[str]:
    """What mutants make of one line."""
    return [mutant.name.split(" => ")[1] for mutant in list_mutants("one.py", source)]


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("x = a < b", ["x = a <= b"]),
        ("x = a is not b", ["x = a is b"]),
        ("x = (a) + (b)", ["x = (a) - (b)"]),
        ("x = a // b", ["x = a * b"]),
        ("x += a", ["x -= a"]),
        ("x = a and b", ["x = a or b"]),
        ("x = not a", ["x = a"]),
        ("x = -a", ["x = +a"]),
        ("x = 2", ["x = 3"]),
        ("x = True", ["x = False"]),
        ("x = 'a'", ["x = 'XXaXX'"]),
        ("f(a, b=c)", ["pass", "f(a)"]),
        ("x = a if b else c", ["x = a if not (b) else c"]),
        ("x = [a[1:] for a in b if c]", ["x = [a[2:] for a in b if c]"]),
    ],
)
def test_each_operator_makes_its_mutants(source: str, changed: list[str]) -> None:
    assert change(source) == changed


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring."""',
        "def f(a: 'int') -> 'int':\n    '''A docstring.'''",
        "def f(a):\n    raise ValueError('a' + 'b')",
        "def f(a):\n    assert a > 0",
        "warnings.warn('a text', stacklevel=2)",
        "x: 'int'",
        "__all__ = ['x']",
        "x = f'{a + 1} of {b}'",
        "x = zip(a, b, strict=True)",
        "def __repr__(self):\n    return 'x'",
        "@triton.jit\ndef f(a):\n    return a + 1",
        "if TYPE_CHECKING:\n    x = 1",
    ],
)
def test_what_no_test_should_notice_is_left_alone(source: str) -> None:
    assert change(source) == []


def test_every_mutant_of_a_module_compiles_keeps_its_lines_and_has_its_own_name() -> None:
    source = (ROOT / "mosaicaug" / "zorder.py").read_text(encoding="utf-8")
    mutants = list_mutants("mosaicaug/zorder.py", source)
    assert len({mutant.name for mutant in mutants}) == len(mutants) > 50
    for mutant in mutants:
        changed = mutant.change(source)
        compile(changed, mutant.module, "exec")
        assert changed != source
        assert changed.count("\n") == source.count("\n")


def test_a_sample_is_the_same_for_one_seed_and_in_order() -> None:
    mutants = list_mutants("one.py", "\n".join(f"x = {i}" for i in range(50)))
    drawn = draw_mutants(mutants, 20, 1)
    assert drawn == draw_mutants(mutants, 20, 1) != draw_mutants(mutants, 20, 2)
    assert len(set(drawn) - set(draw_mutants(mutants[1:], 20, 1))) <= 1, "the others stay when one goes"
    assert [one.line for one in drawn] == sorted({one.line for one in drawn})
    assert draw_mutants(mutants, 50, 1) == draw_mutants(mutants, 0, 1) == mutants


SOURCE = """\
import functools

LIMIT = 2

@functools.lru_cache
def double(x):
    return 2 * x

def make_adder(x):
    return lambda y: x + y

add_one = make_adder(1)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of three functions, in a file of its own."""
    path = tmp_path / "planted.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("planted", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    monkeypatch.setitem(sys.modules, "planted", loaded)
    monkeypatch.setattr(server, "PACKAGES", ("planted",))
    return loaded


def test_functions_that_exist_get_the_code_of_a_mutant(module: Any) -> None:
    mutants = {one.name.split(" => ")[1]: one for one in list_mutants("planted.py", SOURCE)}
    renamed = module.add_one.__code__.replace(co_name="other", co_qualname="Some.other")  # as Kornia copies functions
    copy = FunctionType(renamed, vars(module), closure=module.add_one.__closure__)
    functions = [module.double.__wrapped__, module.make_adder, module.add_one, copy]
    with pytest.raises(ValueError, match="no function of"):  # of a module that tests import late
        server.swap_code([], mutants["return 2 / x"], SOURCE, Path(module.__file__))
    assert (module.double(3), module.add_one(3)) == (6, 4)
    for change in ("return 2 / x", "return lambda y: x - y"):
        server.swap_code(functions, mutants[change], SOURCE, Path(module.__file__))
    assert module.double(4) == 0.5
    assert module.double(3) == 2 / 3, "what was kept is gone"
    assert (module.add_one(3), copy(3), module.make_adder(2)(3)) == (-2, -2, -1)


def test_what_importing_runs_is_imported_with_the_mutant(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    [mutant] = [one for one in list_mutants("planted.py", SOURCE) if one.name == "LIMIT = 2 => LIMIT = 3"]
    assert not mutant.inside
    finder = server.MutatedImport("planted", Path(module.__file__), mutant.change(SOURCE))
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    del sys.modules["planted"]
    assert importlib.import_module("planted").LIMIT == 3


def test_a_fork_gives_its_result_or_nothing_and_its_own_faults_are_errors() -> None:
    assert server.fork(lambda: {"by": "a test"}, 5, 60) == {"by": "a test"}
    assert server.fork(functools.partial(os._exit, 3), 5, 60) is None
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        server.fork(lambda: 1 // 0, 5, 60)
