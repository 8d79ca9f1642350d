"""Generators that are a function of their whole key."""

from __future__ import annotations

import itertools

import torch

from pmsi.runtime.seeding import make_generator


def test_a_key_gives_the_same_numbers_in_every_run() -> None:
    assert make_generator(0, 7).initial_seed() == 4625441644015172652
    first, second = (torch.rand(4, generator=make_generator(3, 1, 2)) for _ in range(2))
    assert torch.equal(first, second)


def test_every_part_of_a_key_and_its_order_count() -> None:
    keys = list(itertools.product(range(6), repeat=3))  # of one length: zeros at the end of a key count for nothing
    assert len({make_generator(*key).initial_seed() for key in keys}) == len(keys)


def test_the_global_generator_does_not_advance() -> None:
    torch.manual_seed(1)
    wanted = torch.rand(2)
    torch.manual_seed(1)
    torch.rand(2, generator=make_generator(1))
    assert torch.equal(torch.rand(2), wanted)
