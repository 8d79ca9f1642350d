"""Loss of a phase as a module: compiled, and wrapped for precision and processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mosaicaug import Targets
from pmsi.models.base import Network


class Objective(nn.Module):
    """Module from images to the loss of one phase; processes average the gradients of its parameters."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, targets: Tensor | Targets, output: int | None) -> Tensor:
        """Loss of the stage ``output``, or for None of the concat logits; see `Network.loss`."""
        return self.network.loss(images, targets, output)


def make_objective(network: Network, *, phases: int, compiled: bool) -> Any:
    """Objective of all phases, compiled on request."""
    if not compiled:
        return Objective(network)
    # A graph for each phase, with the backbone frozen and not.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 4 * phases)
    return torch.compile(Objective(network), dynamic=False)
