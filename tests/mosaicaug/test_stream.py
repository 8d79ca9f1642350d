"""Streams: the plans that calls of `sample` would draw, handed out one by one and uploaded together."""

from __future__ import annotations

import itertools
import re

import pytest
import torch

from mosaicaug import Augmentation, CutMix, Jigsaw, OneOf, Plan, RecursiveMosaic, SnapMix, apply
from mosaicaug.backends.triton.table import make_buffers
from tests.helpers.oracle import number_pixels, seeded

SHAPE = (4, 3, 24, 32)


@pytest.mark.parametrize("aug", [RecursiveMosaic(2), CutMix(), OneOf([Jigsaw(2), SnapMix()])], ids=str)
def test_a_stream_draws_what_calls_draw(aug: Augmentation) -> None:
    generator = seeded(3)
    wanted = []
    for _ in range(5):
        plan = aug.sample(SHAPE, generator=generator)
        wanted.append((plan.to_dict(), [one_of.last_choice.tolist() for one_of in aug._one_ofs]))
    plans = aug.stream(SHAPE, device="cpu", ahead=2, generator=seeded(3))
    for (fields, choices), given in zip(wanted, plans, strict=False):
        assert isinstance(given, Plan)
        assert given.to_dict() == fields
        assert aug.last_plan is given
        assert [one_of.last_choice.tolist() for one_of in aug._one_ofs] == choices


def test_a_stream_follows_the_mode_and_refuses_bad_input() -> None:
    still = CutMix().eval().stream(SHAPE, device="cpu")
    assert not any(plan.has_overlay.any() for plan in itertools.islice(still, 2) if isinstance(plan, Plan))
    with pytest.raises(ValueError, match=re.escape("CutMix: ahead must be at least 1, got 0")):
        next(CutMix().stream(SHAPE, device="cpu", ahead=0))
    with pytest.raises(ValueError, match="CutMix: images must be"):
        next(CutMix().stream(SHAPE[1:], device="cpu"))


@pytest.mark.usefixtures("interpreter")
def test_buffers_that_were_uploaded_together_hold_their_plans() -> None:
    pytest.importorskip("triton")
    images = number_pixels(SHAPE)
    plans = [aug.sample(SHAPE) for aug in (Jigsaw(3), CutMix(), RecursiveMosaic(1))]
    buffers = make_buffers(plans, torch.device("cpu"))
    assert len({buffer.table.words.untyped_storage().data_ptr() for buffer in buffers}) == 1
    for buffer, plan in zip(buffers, plans, strict=True):
        assert buffer.table.words.data_ptr() % 16 == 0
        assert buffer.plan is plan
        assert torch.equal(apply(images, buffer), apply(images, plan, backend="torch"))
    assert torch.equal(apply(images, buffers[2].copy_(RecursiveMosaic(0).sample(SHAPE).refine(2))), images)
