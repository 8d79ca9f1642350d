"""Cost of a network in use: parameters, multiply-accumulates for one image, and bytes of its weights in int8."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pmsi.models.base import Network


def measure_cost(network: Network, size: int) -> dict[str, int]:
    """Measure what a network costs, without data.

    Args:
        network: left as it is.
        size: side of the square image, px.

    Returns:
        ``parameters``; ``int8_bytes`` of `count_int8_bytes`; and ``macs``, multiply-accumulates of convolutions and
        matrix products for one image.

    >>> from pmsi.models.backbones import make_mobilenet_v2
    >>> from pmsi.models.baseline import Baseline
    >>> measure_cost(Baseline(make_mobilenet_v2(), 1000), 224)  # 3.5 million and 301 million in their paper
    {'parameters': 3504872, 'int8_bytes': 3541984, 'macs': 300774272}
    """
    meta = copy.deepcopy(network).eval().to("meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        meta(torch.empty(1, 3, size, size, device="meta"))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    macs = counter.get_total_flops() // 2  # it counts a multiplication and an addition
    return {"parameters": parameters, "int8_bytes": count_int8_bytes(network), "macs": macs}


def count_int8_bytes(network: nn.Module) -> int:
    """Bytes of a network's weights in int8 with batch norm folded: one for each, and four for the bias of each output.

    >>> count_int8_bytes(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)))
    248
    """
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]  # the others are biases and norms
    return sum(weight.numel() + 4 * len(weight) for weight in weights)
