"""`mosaicaug.apply` as one opaque operator, for `torch.compile` and `torch.export`.

A compiler sees shapes alone; all that depends on values - checks, backend, launch - waits until the operator runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mosaicaug.apply import apply, apply_nearest, make_empty
from mosaicaug.backends import torch as torch_backend
from mosaicaug.plan import Plan


@torch.library.custom_op("mosaicaug::apply", mutates_args=())
def apply_operator(
    images: Tensor,
    tiles: Tensor,
    overlay: Tensor,
    from_box: Tensor,
    to_box: Tensor,
    opacity: Tensor,
    height: int,
    width: int,
    window: Tensor | None,
    index: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
    dtype: torch.dtype,
    channels_last: bool,
    backend: str,
    nearest: bool,
) -> Tensor:
    """`apply` with the plan's fields one by one."""
    plan = Plan((height, width), tiles, overlay, from_box, to_box, opacity)
    options: dict[str, Any] = {"window": window, "index": index, "backend": backend}
    if nearest:
        return apply_nearest(images, plan, **options)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return apply(images.detach(), plan, mean=mean, std=std, dtype=dtype, memory_format=memory_format, **options)


@apply_operator.register_fake
def _(images: Tensor, tiles: Tensor, *rest: Any) -> Tensor:
    height, width, dtype, channels_last = rest[4], rest[5], rest[10], rest[11]
    shape = (tiles.shape[0], *images.shape[1:-2], height, width)
    return make_empty(shape, dtype, images.device, channels_last=channels_last)


# Defined one step lower than `custom_op`, which would keep autograd from working inside.
torch.library.define(
    "mosaicaug::apply_backward",
    "(Tensor gradient, SymInt[] stored, ScalarType dtype, Tensor tiles, Tensor overlay, Tensor from_box, "
    "Tensor to_box, Tensor opacity, SymInt height, SymInt width, Tensor? window, Tensor? index, Tensor? std) -> Tensor",
)


@torch.library.impl("mosaicaug::apply_backward", "CompositeExplicitAutograd")
def backward_operator(gradient: Tensor, stored: list[int], dtype: torch.dtype, *rest: Any) -> Tensor:
    """Gradient of images of shape ``stored``; their values do not matter, as `apply` is linear but for ``mean``."""
    *fields, height, width, window, index, std = rest
    scale = None if std is None else (1 / std).to(gradient.device).view(-1, 1, 1)
    options: dict[str, Any] = {"window": window, "index": index, "mean": None, "scale": scale, "nearest": False}
    with torch.enable_grad():
        images = torch.zeros(stored, dtype=dtype, device=gradient.device, requires_grad=True)
        made = torch_backend.run(
            images, Plan((height, width), *fields), **options, dtype=gradient.dtype, channels_last=False
        )
        (result,) = torch.autograd.grad(made, images, gradient)
    return result


def _fake_backward(gradient: Tensor, stored: list[int], dtype: torch.dtype, *_: Any) -> Tensor:
    return torch.empty(stored, dtype=dtype, device=gradient.device)


torch.library.register_fake("mosaicaug::apply_backward", _fake_backward)


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    images, *plan, height, width, window, index, _mean, std, _dtype, _channels_last, _backend, _nearest = inputs
    ctx.stored, ctx.dtype, ctx.size = list(images.shape), images.dtype, (height, width)
    ctx.save_for_backward(*plan, window, index, std)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    *plan, window, index, std = ctx.saved_tensors
    result = torch.ops.mosaicaug.apply_backward(gradient, ctx.stored, ctx.dtype, *plan, *ctx.size, window, index, std)
    return result, *(None,) * 15


apply_operator.register_autograd(_backward, setup_context=_set_up)
