"""API-Net's pairs, its loss against one written pair by pair, and its balanced batches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pmsi.models.api_net import API, nearest_pairs
from pmsi.training.batches import draw_balanced
from tests.helpers.small_run import make_backbone


def test_pairs_by_hand() -> None:
    """Nearest of the own class, then nearest of another; the fifth image is alone with its class."""
    vectors = torch.tensor([[0.0], [1.0], [3.0], [7.0], [8.0]])
    pairs = nearest_pairs(vectors, torch.tensor([0, 1, 0, 1, 2]))
    assert pairs.first.tolist() == [0, 1, 2, 3, 4] * 2
    assert pairs.valid.tolist() == [True] * 4 + [False] + [True] * 5
    assert pairs.second[pairs.valid].tolist() == [2, 3, 0, 1] + [1, 0, 1, 4, 3]


def test_pairs_of_one_class() -> None:
    pairs = nearest_pairs(torch.tensor([[0.0], [1.0], [3.0]]), torch.zeros(3, dtype=torch.int64))
    assert pairs.valid.tolist() == [True] * 3 + [False] * 3
    assert pairs.second[:3].tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="pairs need 2 images or more, got 1"):
        nearest_pairs(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 1, 2], [2, 2, 2, 2, 2, 2]])
def test_api_loss_pair_by_pair(labels: list[int]) -> None:
    network = API(make_backbone(), 3, hidden=8, dropout=0, margin=0.2, ranking_weight=0.5).train()
    images, truth = torch.randn(6, 3, 32, 32), torch.tensor(labels)
    loss = network.loss(images, truth)
    x = network.pool(images)
    entropies, rankings = [], []
    for i in range(6):
        for same in (True, False):
            others = [j for j in range(6) if j != i and (labels[i] == labels[j]) is same]
            if not others:
                continue
            j = min(others, key=lambda j: (x[i] - x[j]).detach().square().sum().item())
            mutual = network.mlp(torch.cat([x[i], x[j]]))
            gates = {k: 1 / (1 + torch.exp(-mutual * x[k])) for k in (i, j)}
            for k, other in ((i, j), (j, i)):
                said = [network.classifier(x[k] * (1 + gates[gate])) for gate in (k, other)]
                entropies += [F.cross_entropy(logits, truth[k]) for logits in said]
                own, foreign = (logits.softmax(0)[truth[k]] for logits in said)
                rankings.append((0.2 - (own - foreign)).clamp(min=0))
    wanted = torch.stack(entropies).mean() + 0.5 * torch.stack(rankings).mean()
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)


def test_api_asks_the_device_nothing() -> None:
    """Tensors without data have nothing to tell the host."""
    network = API(make_backbone(), 3, hidden=8).to("meta")
    loss = network.loss(torch.randn(4, 3, 32, 32, device="meta"), torch.zeros(4, dtype=torch.int64, device="meta"))
    torch.autograd.backward(loss)


def test_api_tests_without_gates_and_dropout() -> None:
    network = API(make_backbone(), 3, hidden=8).eval()
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(network(images).concat, network.classifier[1](network.pool(images)))


def test_balanced_batches() -> None:
    labels = torch.tensor([k for k in range(6) for _ in range(5 + k)])
    labels = labels[torch.randperm(len(labels))]
    batches = draw_balanced(labels, 40, classes=4, samples=3)
    assert batches.shape == (40, 12)
    for batch in batches:
        classes = labels[batch].view(4, 3)
        assert (classes == classes[:, :1]).all()  # three of each
        assert len(set(classes[:, 0].tolist())) == 4  # each class once
        assert len(set(batch.tolist())) == 12
    assert set(batches.flatten().tolist()) == set(range(len(labels)))
    assert len({frozenset(labels[batch].tolist()) for batch in batches}) > 5


def test_balanced_batches_use_up_a_class_before_it_starts_again() -> None:
    batches = draw_balanced(torch.arange(16) % 2, 4, classes=2, samples=4)
    for two in batches.chunk(2):
        assert two.flatten().sort().values.tolist() == list(range(16))


def test_balanced_batches_are_a_function_of_the_generator() -> None:
    labels = torch.arange(20) % 6
    first, again, other = (
        draw_balanced(labels, 5, classes=3, samples=2, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert draw_balanced(labels, 0, classes=3, samples=2).shape == (0, 6)


@pytest.mark.parametrize(
    ("classes", "samples", "message"),
    [
        (1, 4, "pairs need 2 classes of 2 images or more, got 1 of 4"),
        (4, 1, "pairs need 2 classes of 2 images or more, got 4 of 1"),
        (5, 2, "a batch needs 5 classes, the data have 4"),
        (4, 4, "a batch needs 4 images of a class, class 7 has 3"),
    ],
)
def test_batches_that_cannot_be(classes: int, samples: int, message: str) -> None:
    labels = torch.tensor([5] * 4 + [6] * 4 + [7] * 3 + [9] * 6)
    with pytest.raises(ValueError, match=message):
        draw_balanced(labels, 1, classes=classes, samples=samples)
