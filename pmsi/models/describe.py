"""Size and cost of a network: stages, maps, parameters, multiplications, and receptive fields.

From how far a stage sees follows what the paper's rule (section III-B) lets it be trained on: the smallest patch of a
mosaic or jigsaw must be smaller than the stage's receptive field.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakTensorKeyDictionary

from pmsi.models.base import Network
from pmsi.models.cost import count_int8_bytes

MAX_RECURSIONS = 3  # the paper's r <= 3: smaller patches are noise
_MASS = 0.95  # share of the squared gradient that the effective field holds


@dataclass(frozen=True)
class Stage:
    """One resolution level of a backbone.

    Args:
        channels, height, width: of its map.
        parameters, macs: its own, without those of the stages before; multiply-accumulates for one image.
        field: theoretical receptive field, px: side of the square that one place of the map depends on, whether or not
            the image is as large. Infinite where a layer looks at the whole map (squeeze and excitation).
        effective_field: px, side of the least square about that place which holds 95 % of the squared gradient of its
            channels' sum with respect to the image.
        recursions, grid: least r of a mosaic and least n of a jigsaw whose smallest patch is smaller than ``field``.
        effective_recursions, effective_grid: the same for ``effective_field``.
    """

    channels: int
    height: int
    width: int
    parameters: int
    macs: int
    field: float
    effective_field: float
    recursions: int
    grid: int
    effective_recursions: int
    effective_grid: int


@dataclass(frozen=True)
class Description:
    """A network at one resolution; see `describe_network`.

    Args:
        size: side of the square images, px.
        stages: of the backbone, shallow to deep.
        backbone_parameters, head_parameters: pretrained, and newly added.
        int8_bytes: that the weights take in int8, with batch norm folded.
        backbone_macs, head_macs: multiply-accumulates of convolutions and matrix products, for one image.
    """

    size: int
    stages: tuple[Stage, ...]
    backbone_parameters: int
    head_parameters: int
    int8_bytes: int
    backbone_macs: int
    head_macs: int


def describe_network(network: Network, size: int = 448, *, inputs: int = 4, seed: int = 0) -> Description:
    """Sizes and costs without data, then effective receptive fields from gradients of random images.

    Args:
        network: left as it is; of its weights only the effective fields depend.
        size: side of the square images, px.
        inputs: random images (standard normal, as normalised images are) over which squared gradients are averaged.
        seed: of these images.

    Raises:
        ValueError: ``size`` or ``inputs`` below 1, or no gradient reaches the image.

    >>> from pmsi.models.backbones import make_mobilenet_v2
    >>> from pmsi.models.pmsi import PMSI
    >>> found = describe_network(PMSI(make_mobilenet_v2(), 200), 64, inputs=1)
    >>> found.head_parameters, [stage.field for stage in found.stages]
    (8303200, [3, 19, 59, 267, 491])
    """
    if size < 1 or inputs < 1:
        raise ValueError(f"describe_network: size and inputs must be 1 or more, got {size} and {inputs}")
    real = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    meta = copy.deepcopy(real).to("meta")
    count = len(real.backbone.widths)
    image = torch.empty(1, 3, size, size, device="meta")
    with torch.no_grad(), _Trace(image) as backbone:
        maps = meta.backbone(image, count)
        marks: list[_Mark] = [backbone.marks[x] for x in maps]
    with torch.no_grad(), _Trace(image) as whole:
        meta(image)

    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(inputs, 3, size, size, generator=generator)
    images = images.to(next(real.parameters()).device).requires_grad_()
    sides = [_effective_side(x, images, mark) for x, mark in zip(real.backbone(images, count), marks, strict=True)]

    stages = [
        Stage(
            channels=x.shape[1],
            height=x.shape[2],
            width=x.shape[3],
            parameters=mark.parameters - before.parameters,
            macs=mark.macs - before.macs,
            field=mark.field,
            effective_field=side,
            recursions=least_recursions(size, mark.field),
            grid=least_grid(size, mark.field),
            effective_recursions=least_recursions(size, side),
            effective_grid=least_grid(size, side),
        )
        for x, side, before, mark in zip(maps, sides, [_Mark(), *marks], marks, strict=False)
    ]
    backbone_parameters, head_parameters = (
        sum(parameter.numel() for parameter in group) for group in network.parameter_groups()
    )
    return Description(
        size=size,
        stages=tuple(stages),
        backbone_parameters=backbone_parameters,
        head_parameters=head_parameters,
        int8_bytes=count_int8_bytes(network),
        backbone_macs=backbone.macs,
        head_macs=whole.macs - backbone.macs,
    )


def least_recursions(size: int, field: float) -> int:
    """Least r for which the smallest patch of a mosaic, ``size / 2^r`` px, is smaller than ``field`` px.

    >>> [least_recursions(448, field) for field in (59, 267, 491)]
    [3, 1, 0]
    """
    return next(r for r in itertools.count() if size // 2**r < field)


def least_grid(size: int, field: float) -> int:
    """Least n for which the patches of an n x n jigsaw, ``size / n`` px, are smaller than ``field`` px.

    >>> [least_grid(448, field) for field in (59, 267, 491)]
    [8, 2, 1]
    """
    return next(n for n in itertools.count(1) if size // n < field)


def print_description(description: Description, console: Console | None = None) -> None:
    """A table of the stages, and what the network costs."""
    console = console or Console()
    table = Table(title=f"stages at {description.size} px", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for name in ("stage", "map", "k param.", "MMAC", "field", "r", "n", "eff.", "r", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, stage in enumerate(description.stages, 1):
        columns = [str(number), f"{stage.channels} @ {stage.height}x{stage.width}"]
        columns += [f"{stage.parameters / 1e3:,.0f}", f"{stage.macs / 1e6:,.0f}"]
        for field, recursions, grid in (
            (stage.field, stage.recursions, stage.grid),
            (stage.effective_field, stage.effective_recursions, stage.effective_grid),
        ):
            columns.append(f"{field:.0f}" if math.isfinite(field) else "all")
            columns += [_format_range(recursions, MAX_RECURSIONS), _format_range(grid, 2**MAX_RECURSIONS)]
        table.add_row(*columns)
    console.print(table)
    console.print(
        f"field: receptive field, px; r, n: mosaics and jigsaws, up to r = {MAX_RECURSIONS}, whose smallest patch is "
        f"smaller; eff.: side of the square that holds {_MASS:.0%} of the squared gradient, px"
    )
    console.print(
        f"backbone {description.backbone_parameters:,} parameters, {description.backbone_macs / 1e9:.2f} GMAC; "
        f"heads {description.head_parameters:,} parameters, {description.head_macs / 1e9:.2f} GMAC"
    )
    console.print(f"int8 weights {description.int8_bytes / 1e6:.2f} MB")
    if description.head_macs > description.backbone_macs:
        ratio = description.head_macs / description.backbone_macs
        console.print(f"The heads cost {ratio:.1f} times as much as the backbone")


def _format_range(least: int, most: int) -> str:
    if least > most:
        return "-"
    return str(most) if least == most else f"{least}-{most}"


def _effective_side(maps: Tensor, images: Tensor, mark: _Mark) -> float:
    """Side of the least square about the central place of ``maps`` that holds 95 % of its squared gradient."""
    places = [length // 2 for length in maps.shape[2:]]
    # Luo et al. 2016, with the sum of all channels; the graph is kept for the stages to come.
    [gradient] = torch.autograd.grad(maps[:, :, places[0], places[1]].sum(), images, retain_graph=True)
    mass = gradient.double().square().sum((0, 1))  # [H, W]
    if not mass.sum() > 0:
        raise ValueError("describe_network: no gradient of a stage's central place reaches the image")
    rows, columns = (
        (torch.arange(length, device=mass.device) - (mark.start + place * mark.step)).abs()
        for length, place in zip(mass.shape, places, strict=True)
    )
    sides = (2 * torch.maximum(rows[:, None], columns) + 1).flatten()  # of the square that takes a pixel in
    order = sides.argsort()
    held = mass.flatten()[order].cumsum(0)
    return sides[order][(held < _MASS * held[-1]).sum()].item()


class _Mark(NamedTuple):
    """What is known of a map.

    Args:
        field: px of the image that one place depends on, per axis; its centre is ``start + step * place``, px.
        macs, parameters: what had been multiplied, and used, when the map was made.
    """

    field: float = 1
    start: float = 0
    step: int = 1
    macs: int = 0
    parameters: int = 0


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows an image through a network, operation by operation; kernels are taken for square."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs, self.parameters = 0, 0
        self.used: set[int] = set()  # parameters; each counts when it is first used
        self.marks = WeakTensorKeyDictionary()
        self.marks[image] = _Mark()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        operation = func.overloadpacket
        given = [x for x in pytree.tree_leaves(args) if isinstance(x, Tensor)]
        for tensor in given:
            if isinstance(tensor, nn.Parameter) and id(tensor) not in self.used:
                self.used.add(id(tensor))
                self.parameters += tensor.numel()
        if operation in flop_registry:
            self.macs += flop_registry[operation](*args, **(kwargs or {}), out_val=out) // 2
        known = [self.marks[tensor] for tensor in given if tensor in self.marks]
        if known:
            mark = _grow_field(operation, args, out, max(known))  # the branch that sees most
            mark = mark._replace(macs=self.macs, parameters=self.parameters)
            for tensor in pytree.tree_leaves(out):
                if isinstance(tensor, Tensor):
                    self.marks[tensor] = mark
        return out


def _grow_field(operation: Any, args: Sequence[Any], out: Any, mark: _Mark) -> _Mark:
    """What places of the map that an operation makes depend on."""
    aten = torch.ops.aten
    if operation is aten.convolution:
        _, weight, _, (stride, *_), (padding, *_), (dilation, *_), *_ = args
        reach = (weight.shape[2] - 1) * dilation
    elif operation in (aten.max_pool2d_with_indices, aten.avg_pool2d):
        kernel = args[1][0]
        stride = (args[2] if len(args) > 2 and args[2] else args[1])[0]
        padding = args[3][0] if len(args) > 3 else 0
        reach = kernel - 1
    else:
        image = args[0]
        pooled = isinstance(image, Tensor) and isinstance(out, Tensor) and image.ndim == 4 and image.shape[2] > 1
        pooled = pooled and (out.ndim < 4 or out.shape[2] < image.shape[2])
        return mark._replace(field=math.inf) if pooled else mark
    return mark._replace(
        field=mark.field + reach * mark.step,
        start=mark.start + (reach / 2 - padding) * mark.step,
        step=mark.step * stride,
    )
