"""Pairwise Confusion: its distances by hand, its switches, and what it adds to the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pmsi.models.pairwise_confusion import PairwiseConfusion, pair_confusion
from tests.helpers.small_run import make_backbone


@pytest.mark.parametrize(("squared", "distance"), [(True, 2.0), (False, 2**0.5)])
def test_confusion_of_two_rows(squared: bool, distance: float) -> None:
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert pair_confusion(values, torch.tensor([0, 1]), squared=squared).item() == pytest.approx(distance)
    assert pair_confusion(values, torch.tensor([1, 1]), squared=squared).item() == 0
    assert pair_confusion(values, None, squared=squared).item() == pytest.approx(distance)


def test_confusion_pairs_halves() -> None:
    values = torch.tensor([[0.0], [1.0], [10.0], [3.0]])
    assert pair_confusion(values, None, squared=False).item() == 10 + 2
    assert pair_confusion(values, torch.tensor([0, 1, 0, 2]), squared=False).item() == 2


def test_confusion_of_equal_rows_has_a_gradient() -> None:
    values = torch.ones(2, 3, requires_grad=True)
    [gradient] = torch.autograd.grad(pair_confusion(values, None, squared=False), values)
    assert torch.equal(gradient, torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("options", "share", "values"),
    [
        ({}, 2, lambda logits: logits.softmax(1)),
        ({"reduction": "batch"}, 4, lambda logits: logits.softmax(1)),
        ({"on": "logits", "confusion_weight": 0.01}, 2, lambda logits: logits),
    ],
)
def test_confusion_is_added_to_the_loss(
    options: dict[str, Any], share: int, values: Callable[[Tensor], Tensor]
) -> None:
    network = PairwiseConfusion(make_backbone(), 3, **options).eval()
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 1, 1])  # the second pair is of one class
    logits = network(images).concat
    a, _, b, _ = values(logits)
    wanted = F.cross_entropy(logits, labels) + network.confusion_weight * (a - b).square().sum() / share
    torch.testing.assert_close(network.loss(images, labels), wanted)


def test_confusion_needs_an_even_batch() -> None:
    with pytest.raises(ValueError, match="pairs up the batch, which must be even, got 3 images"):
        PairwiseConfusion(make_backbone(), 3).loss(torch.randn(3, 3, 32, 32), torch.arange(3))


@pytest.mark.parametrize("option", ["on", "reduction"])
def test_confusion_refuses_other_switches(option: str) -> None:
    with pytest.raises(ValueError, match=rf"PairwiseConfusion: {option} must be '\w+' or '\w+', got 'mean'"):
        PairwiseConfusion(make_backbone(), 3, **{option: "mean"})  # type: ignore[arg-type]
