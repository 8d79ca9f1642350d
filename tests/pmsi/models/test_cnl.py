"""CNL against its formula, and the maps that respond."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pmsi.models.backbones import make_backbone as make_real
from pmsi.models.cnl import CNL, CrossLayerNonLocal
from tests.helpers.small_run import make_backbone


def list_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


@pytest.mark.parametrize("training", [True, False])
def test_cnl_is_the_baseline_at_initialisation(training: bool) -> None:
    network = CNL(make_backbone(), 3, dropout=0).train(training)
    images = torch.randn(4, 3, 32, 32)
    [last] = network.backbone(images)
    assert torch.equal(network(images).concat, network.classifier(last.mean((2, 3))))
    for norm in list_norms(network.cnl):
        nn.init.ones_(norm.weight)
    assert not torch.equal(network(images).concat, network.classifier(last.mean((2, 3))))


def test_cnl_attention_by_hand() -> None:
    """The formula written out, for two responses of other sizes; 1e-5 for another order of summation."""
    module = CrossLayerNonLocal(4, [3, 5], planes=2).eval()
    for norm in list_norms(module):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    for parameter in (module.query.weight, module.out.weight, *module.keys.parameters(), *module.values.parameters()):
        nn.init.normal_(parameter)
    query, responses = torch.randn(2, 4, 3, 3), [torch.randn(2, 3, 6, 5), torch.randn(2, 5, 4, 4)]
    by_hand = torch.zeros_like(query)
    for key, value, norm, response in zip(module.keys, module.values, list_norms(module), responses, strict=True):
        t, p, g = (x.flatten(2) for x in (module.query(query), key(response), value(response)))
        attention = (torch.einsum("bci,bcj->bij", t, p) / 2**0.5).softmax(2)
        found = torch.einsum("bij,bcj->bci", attention, g).view(2, 2, 3, 3)
        by_hand += norm(module.out(found))
    torch.testing.assert_close(module(query, responses), by_hand, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("published_reshape", "planes"),  # found at the places, by rows: 1 2, 3 4, 5 6 and 7 8
    [(False, [[[1, 3], [5, 7]], [[2, 4], [6, 8]]]), (True, [[[1, 2], [3, 4]], [[5, 6], [7, 8]]])],
)
def test_attended_values_go_back_to_their_places(published_reshape: bool, planes: list[list[list[float]]]) -> None:
    """Four places with keys far apart, so that each attends to itself alone; the numbers are worked out by hand."""
    module = CrossLayerNonLocal(4, [4], planes=2, published_reshape=published_reshape).eval()
    compass = torch.tensor([[1.0, 0, -1, 0], [0, 1, 0, -1]])
    values = torch.tensor([[1.0, 3, 5, 7], [2, 4, 6, 8]])
    weights = (1e3 * compass, compass, values, torch.eye(4, 2))
    convs = (module.query, *module.keys, *module.values, module.out)
    for conv, weight in zip(convs, weights, strict=True):
        conv.load_state_dict({"weight": weight[:, :, None, None]})
    [norm] = list_norms(module)
    nn.init.ones_(norm.weight)
    norm.eps = 1e-30  # nothing beside 1, and above 0, as torch 2.11 wants it
    places = torch.eye(4).view(1, 4, 2, 2)  # a channel for each place
    expected = torch.cat([torch.tensor(planes), torch.zeros(2, 2, 2)])
    assert torch.equal(module(places, [places])[0], expected)


def test_published_reshape_has_the_same_weights() -> None:
    ours = CNL(make_backbone(), 3).eval()
    published = CNL(make_backbone(), 3, published_reshape=True).eval()
    for norm in list_norms(ours.cnl):
        nn.init.ones_(norm.weight)
    published.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert not torch.allclose(ours(images).concat, published(images).concat)


@pytest.mark.parametrize(
    ("name", "query", "responses", "planes"),
    [
        ("mobilenet_v2", 320, [32, 32, 64, 96, 96], 160),
        ("resnet18", 512, [128, 256], 256),
        ("resnet50", 2048, [512, 512, 1024, 1024, 1024], 256),
    ],
)
def test_cnl_places(name: str, query: int, responses: list[int], planes: int) -> None:
    cnl = CNL(make_real(name), 2).cnl
    assert (cnl.query.in_channels, cnl.query.out_channels) == (query, planes)
    assert [key.in_channels for key in cnl.keys if isinstance(key, nn.Conv2d)] == responses
