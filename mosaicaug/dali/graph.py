"""`Graph`: the nodes of `mosaicaug.dali`, in the pipeline that is being defined or in DALI's dynamic mode.

`Pasted` is the plan of `mosaicaug.dali.snapmix` on its way through a pipeline.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from mosaicaug import sampling
from mosaicaug.checks import check_integer
from mosaicaug.plan import Plan, arange

try:
    import nvidia.dali
    import nvidia.dali.fn
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "nvidia":
        raise
    raise ImportError("mosaicaug.dali: the package DALI is missing; pip install mosaicaug[dali]") from error

dali: Any = nvidia.dali  # DALI ships types for a part of it only
types = dali.types


def open_graph(name: str, images: Any, seed: int, *, labels: Any = None, mixes: bool = False) -> Graph:
    """Check where an operation is called, and open the graph that it makes its nodes in.

    Args:
        name: of the operation, for messages.
        images: a node, or a ``Batch`` of the dynamic mode.
        seed: of the draws, 0 or more.
        labels: likewise; required if ``mixes``.
        mixes: True for operations that mix images.

    Raises:
        ValueError: labels or the pipeline's batch size are missing.
        TypeError: images or labels are no nodes, or the seed is no integer.
        RuntimeError: no pipeline is being defined, or the call is in a branch of one.
    """
    check_integer(name, "seed", seed, 0)
    if mixes and labels is None:
        raise ValueError(f"{name}: mixing images mixes labels too, got none; call it with (images, labels)")
    dynamic = sys.modules.get("nvidia.dali.experimental.dynamic")
    if dynamic is not None and isinstance(images, dynamic.Batch):
        return Eager(dynamic, dynamic.math, images.batch_size, seed)
    for what, value in {"images": images, "labels": labels}.items():
        if not isinstance(value, dali.data_node.DataNode) and (mixes or what == "images"):
            wanted = f"{what} must be a node of a DALI pipeline or a Batch of its dynamic mode"
            raise TypeError(f"{name}: {wanted}, got {type(value).__name__}; for tensors use mosaicaug's classes")
    pipeline, branches = dali.Pipeline.current(), dali._conditionals
    if pipeline is None:
        raise RuntimeError(f"{name}: no pipeline is being defined; call it in a function under @pipeline_def")
    if branches.conditionals_enabled() and branches.this_condition_stack().stack_depth() > 1:
        raise RuntimeError(f"{name}: draws are for whole batches, got a branch's part of one; call it before the `if`")
    if not pipeline.max_batch_size:
        raise ValueError(f"{name}: draws need the pipeline's batch size, got none; pass batch_size= to the pipeline")
    return Graph(dali.fn, dali.math, pipeline.max_batch_size, seed)


@dataclass
class Graph:
    """Nodes of the pipeline that is being defined."""

    ops: Any
    math: Any
    batch: int
    seed: int

    def feed(self, draw: Callable[[Generator], list[Tensor]], count: int) -> Any:
        """Make nodes of the ``count`` tensors ``[B, ...]`` that ``draw`` makes anew for every batch."""

        def source(info: Any) -> list[Any]:
            # DALI counts iterations through all epochs of a reader, but anew when a source of images has ended.
            drawn = draw(sampling.batch_generator(self.seed, info.iteration, info.epoch_idx))
            return [value.contiguous().numpy() for value in drawn]  # of tensors DALI would ask for a CUDA stream

        return self.ops.external_source(source, num_outputs=count, batch=True, batch_info=True)

    def constant(self, value: Tensor) -> Any:
        """Node of a fixed tensor."""
        return types.Constant(value.numpy())

    def item(self, node: Any, index: Any) -> Any:
        """Item or slice of a node."""
        return node[index]

    def shape(self, node: Any) -> Any:
        """Shape of a node's tensor, int32."""
        return node.shape(dtype=types.INT32)

    def image_extent(self, images: Any) -> Any:
        """Height and width of images in px, int32 ``[2]``."""
        return self.item(self.shape(images), slice(-3, -1))

    def box(self, reach: Any, centre: Any, extent: Any) -> tuple[Any, Any]:
        """Corners of the boxes that `sampling` makes of the same draw, int32 ``[..., 2]`` each."""
        limit = self.ops.cast(extent, dtype=types.FLOAT64)
        middle, half = self.math.floor(centre * limit), self.math.floor(reach * (limit * 0.5))
        low, high = self.math.max(middle - half, 0), self.math.min(middle + half, limit)
        return self.ops.cast(low, dtype=types.INT32), self.ops.cast(high, dtype=types.INT32)

    def fill_empty(self, low: Any, high: Any) -> tuple[Any, Any]:
        """Flag 1, or 0 if any box is empty; and sizes, one pixel if so: `multi_paste` takes no empty regions."""
        filled = self.ops.cast(self.ops.reductions.min(high - low) > 0, dtype=types.INT32)
        return filled, self.math.max((high - low) * filled, 1)

    def beside(self, images: Any, value: Any) -> Any:  # noqa: ARG002
        """Bring ``value`` to the backend of ``images``; in a pipeline, arithmetic does so by itself."""
        return value


class Eager(Graph):
    """Graph of DALI's dynamic mode: batches instead of nodes, computed at once."""

    def feed(self, draw: Callable[[Generator], list[Tensor]], count: int) -> Any:  # noqa: ARG002
        return [self.ops.as_batch(value.contiguous()) for value in draw(sampling.batch_generator(self.seed))]

    def constant(self, value: Tensor) -> Any:
        return self.ops.as_batch(value.expand(self.batch, *value.shape).contiguous())

    def item(self, node: Any, index: Any) -> Any:
        return node.slice[index]

    def shape(self, node: Any) -> Any:
        return self.ops.as_batch(torch.tensor(node.shape, dtype=torch.int32, device="cpu"))

    def beside(self, images: Any, value: Any) -> Any:
        return value.gpu() if images.device.device_type == "gpu" else value


class Pasted(NamedTuple):
    """Overlays that `snapmix` laid over the images: nodes, or the tensors that an iterator makes of them.

    Attributes:
        labels: ``[B]``, of each image itself.
        overlay: int32 ``[B]``, image that the overlay is cut from.
        from_box: int32 ``[B, 4]``, the cut in the overlay image, as in `Plan`.
        to_box: int32 ``[B, 4]``, the place of the cut in the output, as in `Plan`.
    """

    labels: Any
    overlay: Any
    from_box: Any
    to_box: Any

    def to_plan(self, size: tuple[int, int]) -> Plan:
        """Make the plan of a batch of images of ``size`` px.

        Raises:
            ValueError: the iterator cut the last batch, and partners with it; let it drop or fill that batch
                (``LastBatchPolicy.DROP`` or ``FILL``).
        """
        count = len(self.overlay)
        overlay, from_box, to_box = (torch.as_tensor(value).cpu() for value in self[1:])
        opacity = torch.ones(count, dtype=torch.float32, device="cpu")
        return Plan(size, arange(count)[:, None], overlay, from_box, to_box, opacity)
