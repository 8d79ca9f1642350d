"""Generators from keys of integers."""

from __future__ import annotations

import torch

from pmsi.runtime.seeding import make_generator


def test_generators_are_a_function_of_the_whole_key() -> None:
    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 0), (1, 0, 1)]
    states = {int(torch.randint(2**62, (1,), generator=make_generator(*key))) for key in keys}
    assert len(states) == len(keys)
    first, again = (torch.rand(3, generator=make_generator(5, 6)) for _ in range(2))
    assert torch.equal(first, again)
