"""The input of a case: its shapes, one tensor for cases with equal input, and images drawn without repetition."""

from __future__ import annotations

import pytest
import torch

from bench.throughput.batch import STORED, UnfitError, draw_index, import_library, make_batch, stored_size
from bench.throughput.cases import centre


def test_a_batch_fits_its_case() -> None:
    batch = make_batch(centre("rmg", batch=2, size=16, dtype="bfloat16", layout="channels_last"), "cpu")
    assert (batch.images.shape, batch.images.dtype) == ((2, 3, 16, 16), torch.bfloat16)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert (batch.labels.shape, batch.maps.shape) == ((2,), (2, 14, 14))


def test_a_pipeline_reads_larger_stored_images() -> None:
    case = centre("rmg", task="pipeline", batch=2, size=14)
    batch = make_batch(case, "cpu")
    assert (batch.images.shape, batch.images.dtype) == ((STORED, 3, 16, 16), torch.uint8)
    assert stored_size(448) == 512
    index = draw_index(case, batch.images)
    assert len(set(index.tolist())) == len(index) == 2


def test_cases_with_equal_input_share_one_tensor() -> None:
    first, second = (make_batch(centre(name, batch=2, size=16), "cpu") for name in ("rmg", "jigsaw"))
    assert first.images is second.images
    assert make_batch(centre("rmg", task="draw"), "cpu").images.numel() == 0


def test_a_missing_library_is_named() -> None:
    assert import_library("torch", "PyTorch") is torch
    with pytest.raises(UnfitError, match=r"^Nothing is not installed$"):
        import_library("no_such_module", "Nothing")
