"""Mutants that are planted, and the count of those that are caught."""

from __future__ import annotations

from pathlib import Path

import pytest

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
