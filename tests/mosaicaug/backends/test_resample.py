"""Sampling positions with corners aligned, against their definition, and the dtype of arithmetic."""

from __future__ import annotations

import pytest
import torch

from mosaicaug.backends.resample import bilinear_taps, compute_dtype, nearest_tap


@pytest.mark.parametrize("length", [1, 2, 3, 7])
@pytest.mark.parametrize(("start", "end"), [(0, 1), (2, 4), (3, 10)])
def test_taps_align_corners(start: int, end: int, length: int) -> None:
    near, far, weight = bilinear_taps(
        torch.arange(length), torch.tensor(start), torch.tensor(end), torch.tensor(length), torch.float64
    )
    position = near + weight * (far - near)
    want = [start + offset * (end - start - 1) / max(length - 1, 1) for offset in range(length)]
    torch.testing.assert_close(position, torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-12)
    assert int(near.min()) >= start
    assert int(far.max()) < end
    assert position[0] == start
    assert length == 1 or position[-1] == end - 1


def test_the_nearest_of_two_taps_is_the_first_at_a_tie() -> None:
    near, far = torch.tensor([1, 1, 1]), torch.tensor([2, 2, 2])
    assert nearest_tap(near, far, torch.tensor([0.4, 0.5, 0.6])).tolist() == [1, 1, 2]


def test_only_float64_is_computed_in_float64() -> None:
    for dtype in (torch.uint8, torch.float16, torch.bfloat16, torch.float32):
        assert compute_dtype(torch.empty(1, dtype=dtype)) == torch.float32
    assert compute_dtype(torch.empty(1, dtype=torch.float64)) == torch.float64
