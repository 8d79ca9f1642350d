"""Layers of a backbone as a CPU runs them best: in-place ReLU6, and 1x1 convolutions as matrix products.

Parameters, buffers and their names stay. Measured on MobileNetV2 with the heads of `pmsi.PMSI` (one thread, batches of
32, forward and backward pass): clones and small convolutions took a seventh of a step at 96 px, and a fifth at 64 px
and width 0.35. On other devices, under a compiler and in an exported graph both layers are torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def tune_layers(module: nn.Module) -> None:
    """Replace every in-place ReLU6 and every 1x1 convolution within ``module`` by those below, weights shared."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU6) and child.inplace:
            setattr(module, name, InplaceReLU6())
        elif isinstance(child, nn.Conv2d) and PointwiseConv2d.fits(child):
            setattr(module, name, PointwiseConv2d(child))
        else:
            tune_layers(child)


class InplaceReLU6(nn.ReLU6):
    """ReLU6 in place, whose backward pass reads its output: torch's own clones the input first.

    >>> InplaceReLU6()(torch.tensor([-1.0, 3.0, 9.0]))
    tensor([0., 3., 6.])
    """

    def __init__(self) -> None:
        super().__init__(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        if not _is_plain_cpu(x):
            return super().forward(x)
        out: Tensor = _ClampedInPlace.apply(x)
        return out


class PointwiseConv2d(nn.Conv2d):
    """1x1 convolution that multiplies matrices where the channels of a pixel lie side by side (channels_last).

    Args:
        conv: its weight and bias are shared.

    >>> conv = nn.Conv2d(3, 5, 1)
    >>> x = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    >>> torch.allclose(PointwiseConv2d(conv)(x), conv(x), atol=1e-6)
    True
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 1, bias=conv.bias is not None, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self.training = conv.training

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Test for a pointwise convolution: one pixel, one group, no step and no border."""
        return (conv.kernel_size, conv.stride, conv.padding, conv.groups) == ((1, 1), (1, 1), (0, 0), 1)

    def forward(self, x: Tensor) -> Tensor:
        if not (_is_plain_cpu(x) and x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)):
            return super().forward(x)
        return F.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)


class _ClampedInPlace(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clamp_(0.0, 6.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.mark_dirty(*inputs)
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        # An output strictly between the bounds is its input; at a bound the gradient is 0 either way.
        passed: Tensor = torch.ops.aten.hardtanh_backward(grad, out, 0.0, 6.0)
        return passed


def _is_plain_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()
