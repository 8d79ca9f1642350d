"""API-Net's pairs, its loss against one written pair by pair, and its balanced batches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pmsi.models.api_net import API, nearest_pairs
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
