"""The baseline against its layers, and labels that it cannot compare."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mosaicaug import Targets
from pmsi.models.baseline import Baseline, check_hard_labels
from tests.helpers.small_run import make_identity_backbone


def test_baseline_is_pooling_dropout_and_a_linear_layer() -> None:
    network = Baseline(make_identity_backbone(), 2, dropout=0.2)
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(network.eval()(images).concat, network.classifier[1](images.mean((2, 3))))
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.2]


def test_hard_labels_pass_and_mixed_ones_do_not() -> None:
    labels = torch.tensor([0, 2], dtype=torch.int32)
    assert check_hard_labels("API", labels).tolist() == [0, 2]
    for mixed in (Targets(labels, labels, torch.ones(2), torch.zeros(2)), torch.eye(2)):
        with pytest.raises(TypeError, match=r"API: compares the classes of images, so it needs integer labels \[B\]"):
            check_hard_labels("API", mixed)
