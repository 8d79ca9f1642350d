"""The cases of the benchmark: complete, unique, and ordered by their input."""

from __future__ import annotations

import itertools

from bench.throughput.cases import DOORS, DTYPES, LAYOUTS, PEERS, PERS, centre, list_pairs


def test_cases_are_what_is_to_be_measured() -> None:
    cpu, cuda = list_pairs("cpu"), list_pairs("cuda")
    assert set(cpu) < set(cuda)
    for pairs in (cpu, cuda):
        assert len({f"{case.name}-{side}" for case, side in pairs}) == len(pairs)
        assert len(list(itertools.groupby(pairs, key=lambda pair: pair[0]))) == len({case for case, _ in pairs})
    axes = itertools.product(PEERS, (1, 32, 256), (224, 448), DTYPES, LAYOUTS, PERS, ("ours", "ours_out", "copy"))
    for name, batch, size, dtype, layout, per, side in axes:
        assert (centre(name, batch=batch, size=size, dtype=dtype, layout=layout, per=per), side) in set(cuda)
    sides = {(case.augmentation, side) for case, side in cpu if case == centre(case.augmentation)}
    assert sides == {(name, side) for name in PEERS for side in ("ours", "ours_out", "copy", *PEERS[name], *DOORS)}


def test_equal_inputs_are_next_to_each_other() -> None:
    """They are made once, and the largest takes 617 MB."""
    inputs = [(case.task, case.batch, case.size, case.dtype, case.layout) for case, _ in list_pairs("cpu")]
    assert len(list(itertools.groupby(inputs))) == len(set(inputs))


def test_bytes_are_those_that_must_move() -> None:
    pixels = 32 * 3 * 448 * 448
    assert centre("rmg").bytes == pixels * 8
    assert centre("rmg", dtype="uint8").bytes == pixels * 2
    assert centre("rmg", task="pipeline").bytes == pixels * 5
    assert centre("rmg", task="draw").bytes is None
