"""Operators of `torch.compile` and `torch.export`: drawing, and `mosaicaug.apply` with its gradient.

A compiler sees shapes alone; all that depends on values (draws, checks, backend, launch) happens when an operator runs.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import GetAttrKey, _register_namedtuple, register_pytree_node

from mosaicaug import sampling
from mosaicaug.annotations import Placed
from mosaicaug.apply import Backend, apply, apply_nearest
from mosaicaug.augmentation import PROCESS, augmentations
from mosaicaug.backends import reference
from mosaicaug.backends.request import Request, make_empty
from mosaicaug.plan import Plan, build_unchecked, overlay_share
from mosaicaug.targets import Targets

_FIELDS = [field.name for field in fields(Plan) if field.name != "size"]

# So that a plan may be an argument of an exported program.
register_pytree_node(
    Plan,
    lambda plan: ([getattr(plan, name) for name in _FIELDS], plan.size),
    lambda values, size: build_unchecked(size, *values),
    flatten_with_keys_fn=lambda plan: ([(GetAttrKey(name), getattr(plan, name)) for name in _FIELDS], plan.size),
    serialized_type_name="mosaicaug.Plan",
    to_dumpable_context=list,
    from_dumpable_context=tuple,
)
# So that exported programs that return them can be saved.
_register_namedtuple(Targets, serialized_type_name="mosaicaug.Targets")
_register_namedtuple(Placed, serialized_type_name="mosaicaug.Placed")


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
    """Carry out `mosaicaug.apply` with the plan's fields one by one, as operators take no classes."""
    plan = Plan((height, width), tiles, overlay, from_box, to_box, opacity)
    chosen = cast("Backend", backend)  # `apply` checks it
    if nearest:
        return apply_nearest(images, plan, window=window, index=index, backend=chosen)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return apply(
        images.detach(),
        plan,
        window=window,
        index=index,
        mean=mean,
        std=std,
        dtype=dtype,
        memory_format=memory_format,
        backend=chosen,
    )


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
    """Gradient of images of shape ``stored``; their values do not matter, as `apply` is linear apart from ``mean``."""
    *fields, height, width, window, index, std = rest
    request = Request(gradient.dtype, channels_last=False, window=window, index=index, std=std)
    with torch.enable_grad():
        images = torch.zeros(stored, dtype=dtype, device=gradient.device, requires_grad=True)
        made = reference.run(images, Plan((height, width), *fields), request, None)
        (result,) = torch.autograd.grad(made, images, gradient)
    # Fresh memory in the layout that the compiler was told: where nothing moves, this is the gradient itself.
    return torch.empty(stored, dtype=dtype, device=gradient.device).copy_(result)


def _fake_backward(gradient: Tensor, stored: list[int], dtype: torch.dtype, *_: Any) -> Tensor:
    """Shape and dtype of the gradient, for the compiler."""
    return torch.empty(stored, dtype=dtype, device=gradient.device)


torch.library.register_fake("mosaicaug::apply_backward", _fake_backward)


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    """Keep the plan and the shapes for the backward pass; the images' values are not needed."""
    images, *plan, height, width, window, index, _mean, std, _dtype, _channels_last, _backend, _nearest = inputs
    ctx.stored, ctx.dtype, ctx.size = list(images.shape), images.dtype, (height, width)
    ctx.save_for_backward(*plan, window, index, std)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of `apply_operator`'s arguments: of the images alone."""
    *plan, window, index, std = ctx.saved_tensors
    result = torch.ops.mosaicaug.apply_backward(gradient, ctx.stored, ctx.dtype, *plan, *ctx.size, window, index, std)
    return result, *(None,) * 15


apply_operator.register_autograd(_backward, setup_context=_set_up)


@torch.library.custom_op("mosaicaug::draw", mutates_args={"order"})
def draw_operator(
    handle: int,
    exported: str,
    batch: int,
    height: int,
    width: int,
    grid: int,
    choosers: int,
    order: Tensor,  # noqa: ARG001 - see `mosaicaug.augmentation`
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Draw a plan by the augmentation of number ``handle``: the fields of `Plan`, and the choices of every `OneOf`.

    Args:
        handle: of the augmentation, in this process.
        exported: `PROCESS` of a program that was exported, else empty.
        batch: number of images.
        height: of the images, px.
        width: likewise.
        grid: tiles per side of the plan.
        choosers: number of `OneOf` within the augmentation.
        order: see `mosaicaug.augmentation`.
    """
    augmentation = augmentations.get(handle)
    if augmentation is None or exported not in ("", PROCESS):
        raise RuntimeError(
            "mosaicaug: this graph draws by an augmentation of another process or one that is gone; export networks "
            "in eval mode, or with the plan as an argument"
        )
    plan = sampling.draw_plainly(lambda: augmentation.draw(batch, (height, width), None))
    if grid % plan.grid:
        raise ValueError(f"{augmentation.name}: grid says {grid} tiles per side, but it drew {plan.grid}")
    plan = plan.refine(grid // plan.grid)
    choices = [torch.zeros(0, batch, dtype=torch.int64, device="cpu")]
    choices += [one_of.last_choice[None] for one_of in augmentation._one_ofs]
    assert len(choices) == 1 + choosers
    fields = plan.tiles, plan.overlay, plan.from_box, plan.to_box, plan.opacity, overlay_share(plan)
    # An operator's results may not share memory, as both boxes of a CutMix do.
    return *(field.clone() for field in fields), torch.cat(choices)  # type: ignore[return-value]


@draw_operator.register_fake
def _(
    handle: int,  # noqa: ARG001 - shapes follow from numbers that compilers keep with the graph
    exported: str,  # noqa: ARG001
    batch: int,
    height: int,  # noqa: ARG001
    width: int,  # noqa: ARG001
    grid: int,
    choosers: int,
    order: Tensor,  # noqa: ARG001
) -> tuple[Tensor, ...]:
    shapes = (batch, grid**2), (batch,), (batch, 4), (batch, 4)
    places = (torch.empty(shape, dtype=torch.int32, device="cpu") for shape in shapes)
    shares = (torch.empty(batch, dtype=torch.float32, device="cpu") for _ in range(2))
    return *places, *shares, torch.empty(choosers, batch, dtype=torch.int64, device="cpu")
