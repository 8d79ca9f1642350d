"""The value of one call: frozen, with per-channel values and memory in the form that backends take."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mosaicaug.backends.request import Request, make_empty


def test_a_request_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Request(torch.float32, channels_last=False).nearest = True  # type: ignore[misc]


def test_values_per_channel_broadcast_over_planes() -> None:
    request = Request(torch.float32, channels_last=False, mean=torch.tensor([1.0, 2.0]), std=torch.tensor([4.0, 0.5]))
    mean, scale = request.mean_and_scale(torch.device("cpu"))
    assert mean is not None
    assert scale is not None
    assert (mean.shape, scale.shape) == ((2, 1, 1), (2, 1, 1))
    assert (mean.flatten().tolist(), scale.flatten().tolist()) == ([1.0, 2.0], [0.25, 2.0])
    assert Request(torch.float32, channels_last=False).mean_and_scale(torch.device("cpu")) == (None, None)


@pytest.mark.parametrize("lead", [(2,), (2, 4)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_has_one_of_two_layouts(channels_last: bool, lead: tuple[int, ...]) -> None:
    shape = (*lead, 3, 5, 6)
    for made in (
        make_empty(shape, torch.bfloat16, torch.device("cpu"), channels_last=channels_last),
        Request(torch.bfloat16, channels_last=channels_last).make_output(shape, torch.device("cpu")),
    ):
        assert (made.shape, made.dtype) == (shape, torch.bfloat16)
        assert (made.movedim(-3, -1) if channels_last else made).is_contiguous()
