"""The tables of nested shuffles against the plain rule in base 4, bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch

from mosaicaug.zorder import SHUFFLES, Permutation, _make_tables, nested_shuffles
from tests.helpers.oracle import seeded


def source_digits(digits: Sequence[int], shuffles: Sequence[Sequence[int]], path: Sequence[int]) -> list[int]:
    """The rule: a digit is shuffled if the digits before it are the path of entered quadrants."""
    return [
        shuffles[level][digit] if list(digits[:level]) == list(path[:level]) else digit
        for level, digit in enumerate(digits)
    ]


def number_in_rows(digits: Sequence[int]) -> int:
    """A tile's number row by row: the low bits of its digits are its column, the high bits its row."""
    row = column = 0
    for digit in digits:
        row, column = 2 * row + digit // 2, 2 * column + digit % 2
    return (row << len(digits)) + column


@pytest.mark.parametrize("permutation", ["uniform", "cyclic"])
@pytest.mark.parametrize("r", [1, 2, 3, 5])
def test_tables_follow_the_rule_in_base_4(r: int, permutation: Permutation) -> None:
    uniforms = torch.rand(20, 2 * r, generator=seeded(r), dtype=torch.float64)
    orders = SHUFFLES[permutation]
    got = nested_shuffles(uniforms, permutation)
    assert got.dtype == torch.int32
    for row, sources in zip(uniforms.tolist(), got.tolist(), strict=True):
        shuffles = [orders[int(value * len(orders))] for value in row[0::2]]
        path = [int(value * 4) for value in row[1::2]]
        want = [-1] * 4**r
        for digits in itertools.product(range(4), repeat=r):
            want[number_in_rows(digits)] = number_in_rows(source_digits(digits, shuffles, path))
        assert sources == want


def test_the_worked_example_of_the_documentation() -> None:
    shuffles, path = [(2, 0, 3, 1), (1, 0, 2, 3)], [1]
    assert [source_digits([digit], shuffles, path) for digit in range(4)] == [[2], [0], [3], [1]]
    for tile, source in ([1, 2], [0, 2]), ([1, 0], [0, 1]), ([3, 2], [1, 2]):
        assert source_digits(tile, shuffles, path) == source


@pytest.mark.parametrize(("permutation", "count"), [("uniform", 24), ("cyclic", 6)])
def test_shuffles_are_all_there_are(permutation: Permutation, count: int) -> None:
    orders = SHUFFLES[permutation]
    assert len(set(orders)) == count
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    if permutation == "cyclic":
        assert not any(order[quadrant] == quadrant for order in orders for quadrant in range(4))
        assert all(order[order[order[quadrant]]] != quadrant for order in orders for quadrant in range(4))


def test_no_recursion_moves_nothing() -> None:
    assert nested_shuffles(torch.zeros(3, 0, dtype=torch.float64), "uniform").tolist() == [[0]] * 3


def test_tables_are_kept_as_ordinary_tensors() -> None:
    _make_tables.cache_clear()
    with torch.inference_mode():
        tables = _make_tables(1, "uniform")
    assert not any(table.is_inference() for table in tables)
