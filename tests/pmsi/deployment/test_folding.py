"""Batch norms are folded from both sides, whatever shares its weights, and change nothing but rounding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pmsi.deployment.classifier import Classifier
from pmsi.deployment.folding import export_folded
from pmsi.models.pmsi import PMSI
from tests.helpers.small_export import make_blue
from tests.helpers.small_run import make_backbone


class Shared(nn.Module):
    """One linear layer used twice, with norms before, behind and apart from layers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv = nn.Linear(4, 4), nn.Conv2d(3, 4, 3, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), *(nn.BatchNorm1d(4) for _ in range(4))])
        for number, norm in enumerate(self.norms):
            generator = torch.Generator().manual_seed(number)
            assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
            for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                assert values is not None
                values.data = torch.rand(4, generator=generator) + 0.5

    def forward(self, images: Tensor) -> Tensor:
        x = self.norms[0](self.conv(images.float() / 255)).mean((2, 3))
        x = torch.relu(self.norms[2](self.linear(self.norms[1](x))))
        x = self.norms[3](self.linear(x))
        out: Tensor = self.norms[4](torch.relu(x))  # which has no neighbour
        return out


def test_norms_are_folded_from_both_sides() -> None:
    module = Shared().eval()
    images = torch.randint(0, 256, (5, 3, 9, 9), dtype=torch.uint8)
    program = export_folded(module, images[:2])
    norms = [node for node in program.graph.nodes if "batch_norm" in str(node.target)]
    assert len(norms) == 1
    assert torch.allclose(program.module()(images), module(images), atol=1e-6)  # of another batch size
    assert sum(value.numel() for value in program.state_dict.values()) == 2 * 20 + 112 + 4 * 4


def test_a_classifier_is_exported_with_its_normalisation() -> None:
    classifier, _, checked = make_blue()
    images = torch.from_numpy(checked.images)
    program = export_folded(classifier, images[:2])
    assert torch.allclose(program.module()(images), classifier(images), atol=1e-6)


def test_concat_of_cheap_heads_leaves_out_what_mix_alone_needs() -> None:
    network = PMSI(make_backbone(), 3, stages=2, feature_width=16, hidden_width=8, smooth="separable", smooth_width=4)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    sizes = []
    for output in ("mix", "concat"):
        classifier = Classifier(network, (0.0,) * 3, (255.0,) * 3, output=output).eval()
        program = export_folded(classifier, images[:2])
        assert torch.allclose(program.module()(images), classifier(images), atol=1e-6)
        sizes.append(sum(value.numel() for value in program.state_dict.values()))
        assert not [node for node in program.graph.nodes if "batch_norm" in str(node.target)]
    assert sizes[0] - sizes[1] == 2 * (16 * 8 + 8 + 8 * 3 + 3)  # a classifier for each stage
