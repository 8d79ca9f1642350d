"""A side names the reason why it cannot run a case."""

from __future__ import annotations

import sys

import pytest
import torch

from bench.throughput.batch import Batch, UnfitError
from bench.throughput.cases import Case, centre
from bench.throughput.sides import make_run


@pytest.mark.parametrize(
    ("case", "side", "reason"),
    [
        (centre("jigsaw"), "loop", "the published loop draws once per batch"),
        (centre("cutmix"), "torchvision", "torchvision draws once per batch"),
        (centre("jigsaw", dtype="uint8"), "kornia", "Kornia takes floating images only"),
        (centre("cutmix", dtype="bfloat16"), "dali", "DALI has no bfloat16 here"),
        (centre("cutmix", batch=3), "timm", "timm needs an even batch"),
        (centre("rmg", task="pipeline"), "kornia", "Kornia has no such augmentation"),
        (centre("rmg", task="pipeline", per="batch"), "torchvision", "torchvision has no such augmentation"),
    ],
)
def test_a_side_says_what_it_cannot_do(case: Case, side: str, reason: str) -> None:
    images = torch.zeros(case.batch, 3, 8, 8, dtype=case.torch_dtype)
    with pytest.raises(UnfitError) as caught:
        make_run(case, side, Batch(images, torch.zeros(case.batch).long(), torch.ones(case.batch, 2, 2)))
    if "is not installed" in str(caught.value):
        pytest.skip(str(caught.value))
    assert str(caught.value) == reason


def test_a_library_that_is_not_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    with pytest.raises(UnfitError, match=r"^Kornia is not installed$"):
        make_run(centre("jigsaw", batch=1), "kornia", Batch(torch.zeros(1, 3, 8, 8), torch.zeros(1), torch.zeros(1)))
