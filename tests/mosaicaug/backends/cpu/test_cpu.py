"""The CPU backend as a whole: blocks that cover the output, output passed or made, what is read and not written."""

from __future__ import annotations

import pytest
import torch

from mosaicaug import Jigsaw
from mosaicaug.backends import cpu
from mosaicaug.backends.cpu import tiles
from mosaicaug.backends.request import Request
from tests.helpers.oracle import copy_pixels, number_pixels, seeded


@pytest.mark.parametrize("bands", [False, True])
@pytest.mark.parametrize("scratch", [0.0, 1.0, 50.0, 1e6])
def test_blocks_cover_every_row_of_every_image_once(
    scratch: float, bands: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "SCRATCH_BYTES", 5000)
    out, seen = torch.empty(7, 3, 10, 12), torch.zeros(7, 10)
    for images, rows in cpu._blocks(out, scratch, bands=bands):
        assert bands or (rows.start, rows.stop) == (0, 10)
        seen[images, rows] += 1
    assert (seen == 1).all()


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_output_is_made_or_filled(channels_last: bool, given: bool) -> None:
    images = number_pixels((4, 3, 8, 12))
    plan = Jigsaw(4).sample(images.shape, generator=seeded(3))
    request = Request(torch.float32, channels_last=channels_last)
    out = request.make_output((4, 3, 8, 12), images.device) if given else None
    got = cpu.run(images, plan, request, out)
    assert (got is out) == given
    assert (got.stride(1) == 1) == channels_last
    assert torch.equal(got, copy_pixels(images, plan.to_dict()))
