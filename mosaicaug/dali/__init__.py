"""DALI nodes of the five augmentations, from the same draws as everywhere else.

Examples:
    >>> from nvidia.dali import fn, pipeline_def, types
    >>> from mosaicaug.dali import cutmix, recursive_mosaic
    >>> @pipeline_def(batch_size=8, num_threads=1, device_id=None)
    ... def pipeline():
    ...     images = fn.random.uniform(range=[0, 255], shape=[64, 48, 3], dtype=types.UINT8)
    ...     labels = fn.random.uniform(range=[0, 9], shape=[1], dtype=types.INT32)
    ...     mosaics = recursive_mosaic(images, r=3, seed=1)
    ...     return mosaics, *cutmix(images, labels, num_classes=10, seed=2)
    >>> mosaics, mixed, soft = pipeline().run()
    >>> mosaics.shape()[0], mixed.shape()[0], soft.shape()[0]
    ((64, 48, 3), (64, 48, 3), (10,))

- Images are height, width, channels (HWC), on DALI's CPU or GPU backend. Copies are the bits that torch gives, and so
  are MixUp's float32 blends; what is rounded to uint8 differs by one level at most, SnapMix's float32 by 0.3% of white.
- Batch k of a pipeline is drawn from (seed, k), counted on through all epochs, and the first one as from
  ``torch.Generator().manual_seed(seed)``. Two operations with one seed draw alike, so give each its own.
- A pipeline's batches are as large as it says: a reader pads the last one, and ``DALIGenericIterator`` cuts the padding
  off again, whose images may be partners of others. With conditional execution, call these outside of branches.
- DALI's dynamic mode: pass a ``Batch``. Nothing counts there, so give each batch a seed of its own.
- DALI knows layouts, dtypes and sizes when a pipeline runs, not when it is defined. Errors in these are DALI's; they
  quote the line of this file that they come from, and the comment there says what is required. On a CPU `multi_paste`
  takes no videos.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from mosaicaug import sampling
from mosaicaug.dali.graph import Graph, Pasted, open_graph, types
from mosaicaug.plan import arange
from mosaicaug.sampling import Per
from mosaicaug.targets import Targets, mix_labels
from mosaicaug.transforms import CutMix, Jigsaw, MixUp, RecursiveMosaic, SnapMix
from mosaicaug.zorder import Permutation

__all__ = ["Pasted", "cutmix", "jigsaw", "mixup", "recursive_mosaic", "snapmix"]


def recursive_mosaic(
    images: Any, r: int = 3, *, p: float = 1.0, per: Per = "sample", permutation: Permutation = "uniform", seed: int = 0
) -> Any:
    """Node of `RecursiveMosaic` (Wu et al. 2021, section III-B); labels stay as they are.

    Args:
        images: HWC, of uint8, int16, int32 or float32; sizes may differ.
        r: recursions; the smallest patch is ``H // 2**r`` px high.
        p: chance that an image is augmented.
        per: "sample" draws for every image, "batch" once for all.
        permutation: "uniform" over the 24 shuffles of four quadrants, or "cyclic", the published code's six.
        seed: of the draws, 0 or more.

    Returns:
        Images of the same sizes, dtype and layout.

    Raises:
        ValueError: an argument is out of range, or the pipeline has no batch size.
        TypeError: ``images`` are no node, or ``r`` or ``seed`` is no integer.
        RuntimeError: called outside of a pipeline's definition or in a branch of it; and by DALI, when the pipeline
            runs, for other dtypes and for images smaller than ``2**r`` px (ValueError for other layouts).
    """
    return _rearrange(RecursiveMosaic(r, p=p, per=per, permutation=permutation), "recursive_mosaic", images, seed)


def jigsaw(
    images: Any, n: int = 4, *, p: float = 1.0, per: Per = "sample", permutation: Permutation = "uniform", seed: int = 0
) -> Any:
    """Node of `Jigsaw` (Du et al. 2020, section 3.3); labels stay as they are.

    Args:
        images: HWC, of uint8, int16, int32 or float32; sizes may differ.
        n: tiles per side.
        p: chance that an image is augmented.
        per: "sample" draws for every image, "batch" once for all.
        permutation: "uniform", or "cyclic": one random cycle through all tiles.
        seed: of the draws, 0 or more.

    Returns:
        Images of the same sizes, dtype and layout.

    Raises:
        ValueError: as `recursive_mosaic`.
        TypeError: likewise.
        RuntimeError: likewise; by DALI for images smaller than ``n`` px.
    """
    return _rearrange(Jigsaw(n, p=p, per=per, permutation=permutation), "jigsaw", images, seed)


def cutmix(
    images: Any,
    labels: Any = None,
    alpha: float = 1.0,
    *,
    num_classes: int | None = None,
    p: float = 1.0,
    per: Per = "sample",
    true_area: bool = True,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Node of `CutMix` (Yun et al. 2019).

    Args:
        images: HWC, of uint8, int16, int32 or float32, all of one size.
        labels: integers as readers make them, ``[1]`` or scalars; with ``num_classes`` also soft ``[K]``.
        alpha: of the Beta(alpha, alpha) that one minus the box's relative area is drawn from.
        num_classes: K, to get soft labels. A label of K or more stops the pipeline, one below 0 counts for no class.
        p: chance that an image is augmented.
        per: "sample" draws a box for every image, "batch" one for all.
        true_area: weigh labels by exact pixel shares; False keeps the drawn weight, though the box was clipped.
        seed: of the draws, 0 or more.

    Returns:
        Images; and soft labels, float32 ``[K]``, or `Targets` of scalars. If an iterator names its outputs so,
        ``Targets(*(batch[name] for name in Targets._fields))`` is what `cross_entropy` takes.

    Raises:
        ValueError: an argument is out of range, or labels are missing.
        TypeError: as `recursive_mosaic`.
        RuntimeError: as `recursive_mosaic`.
    """
    CutMix(alpha, num_classes=num_classes, p=p, per=per)  # checks
    graph = open_graph("cutmix", images, seed, labels=labels, mixes=True)

    def draw(generator: Generator) -> list[Tensor]:
        cut = sampling.draw_cutmix(graph.batch, alpha, per=per, generator=generator)
        chosen = cut.block[:, 0] < p
        drawn = [] if true_area else [(cut.share * chosen).float()]
        return [arange(graph.batch), cut.partner, cut.reach * chosen, cut.centre, *drawn]

    own, partner, reach, centre, *drawn = graph.feed(draw, 4 if true_area else 5)
    ops, item, extent = graph.ops, graph.item, graph.image_extent(images)
    low, high = graph.box(reach, centre, extent)
    filled, size = graph.fill_empty(low, high)
    corners = ops.stack(low * 0, low)
    mixed = ops.multi_paste(  # images must be HWC of uint8, int16, int32 or float32, all of one size
        images,
        in_ids=ops.stack(own, own + (partner - own) * filled),
        in_anchors=corners,
        out_anchors=corners,
        shapes=ops.stack(extent, size),
        output_size=extent,
    )
    box, whole = ops.cast(high - low, dtype=types.FLOAT64), ops.cast(extent, dtype=types.FLOAT64)
    area, total = item(box, 0) * item(box, 1), item(whole, 0) * item(whole, 1)
    share = ops.cast(area / total, dtype=types.FLOAT) if true_area else drawn[0]
    rest = ops.cast(1.0 - ops.cast(share, dtype=types.FLOAT64), dtype=types.FLOAT)
    return mixed, _mix_labels(graph, labels, partner, rest, share, num_classes)


def mixup(
    images: Any,
    labels: Any = None,
    alpha: float = 1.0,
    *,
    num_classes: int | None = None,
    p: float = 1.0,
    per: Per = "sample",
    seed: int = 0,
) -> tuple[Any, Any]:
    """Node of `MixUp` (Zhang et al. 2018); images may have any layout, video too.

    Args:
        images: of one size, any dtype and layout.
        labels: integers as readers make them, ``[1]`` or scalars; with ``num_classes`` also soft ``[K]``.
        alpha: of the Beta(alpha, alpha) that the weight is drawn from.
        num_classes: K, to get soft labels, as for `cutmix`.
        p: chance that an image is augmented.
        per: "sample" draws a weight for every image, "batch" one for all.
        seed: of the draws, 0 or more.

    Returns:
        As `cutmix`.

    Raises:
        ValueError: an argument is out of range, or labels are missing.
        TypeError: as `recursive_mosaic`.
        RuntimeError: as `recursive_mosaic`.
    """
    aug = MixUp(alpha, num_classes=num_classes, p=p, per=per)
    graph = open_graph("mixup", images, seed, labels=labels, mixes=True)

    def draw(generator: Generator) -> list[Tensor]:
        plan = aug.draw(graph.batch, (1, 1), generator)
        _, _, rest, share = mix_labels(plan, plan.overlay)
        return [plan.overlay, rest, share]

    partner, rest, share = graph.feed(draw, 3)
    other = graph.ops.permute_batch(images, indices=partner)
    mixed = graph.beside(images, rest) * images + graph.beside(images, share) * other  # images must be of one size
    return graph.ops.cast_like(mixed, images), _mix_labels(graph, labels, partner, rest, share, num_classes)


def snapmix(
    images: Any, labels: Any = None, beta: float = 5.0, *, p: float = 1.0, per: Per = "sample", seed: int = 0
) -> tuple[Any, Pasted]:
    """Node of `SnapMix`'s images (Huang et al. 2021), and the boxes that its labels are computed from.

    Its weights come from class activation maps of the images before they are mixed, so from a network. Let the pipeline
    return ``images, mixed, *pasted`` and the training loop compute the labels::

        pasted = Pasted(*(batch[name] for name in Pasted._fields))
        targets = SnapMix().targets(pasted.to_plan((height, width)), pasted.labels, maps=maps)

    Args:
        images: HWC, of uint8, int16, int32 or float32, all of one size.
        labels: integers as readers make them, ``[1]`` or scalars.
        beta: of the Beta(beta, beta) that one minus each box's relative area is drawn from.
        p: chance that an image is augmented.
        per: "sample" draws boxes for every image, "batch" once for all.
        seed: of the draws, 0 or more.

    Raises:
        ValueError: an argument is out of range, or labels are missing.
        TypeError: as `recursive_mosaic`.
        RuntimeError: as `recursive_mosaic`.
    """
    SnapMix(beta, p=p, per=per)  # checks
    graph = open_graph("snapmix", images, seed, labels=labels, mixes=True)

    def draw(generator: Generator) -> list[Tensor]:
        cut = sampling.draw_snapmix(graph.batch, beta, per=per, generator=generator)
        reach = cut.reach * (cut.block[:, 0] < p)  # [2, B]
        return [arange(graph.batch), cut.partner, reach.T[..., None], cut.centre.transpose(0, 1)]

    own, partner, reach, centre = graph.feed(draw, 4)
    ops, item, extent = graph.ops, graph.item, graph.image_extent(images)
    low, high = graph.box(reach, centre, extent)  # [2, 2] each: of to_box and from_box, y and x
    filled, size = graph.fill_empty(low, high)
    low, high = low * filled, high * filled
    start, length = item(low, 0), item(size, 0)
    scale = (item(size, 1) - 1) / graph.math.max(length - 1, 1)
    # Corners are aligned at the centres of pixels; DALI counts from their edges.
    shift = item(low, 1) + 0.5 - 0.5 * scale
    zero = item(scale, 0) * 0.0
    matrix = ops.stack(item(scale, 1), zero, item(shift, 1), zero, item(scale, 0), item(shift, 0))
    stretched = ops.warp_affine(  # images must be HWC, all of one size
        ops.permute_batch(images, indices=own + (partner - own) * filled),
        matrix=ops.reshape(matrix, shape=[2, 3]),
        size=ops.cast(length, dtype=types.FLOAT),
    )
    mixed = ops.multi_paste(  # images must be HWC of uint8, int16, int32 or float32, all of one size
        images,
        stretched,
        out_anchors=ops.stack(start * 0, start),
        shapes=ops.stack(extent, length),
        output_size=extent,
    )
    to_box, from_box = (ops.cat(item(low, k), item(high, k)) for k in (0, 1))
    return mixed, Pasted(ops.reshape(labels, shape=[]), partner, from_box, to_box)  # labels must be one integer each


def _rearrange(aug: RecursiveMosaic | Jigsaw, name: str, images: Any, seed: int) -> Any:
    """Paste the tiles of each image at the places that the plan gives them."""
    graph, grid = open_graph(name, images, seed), aug.grid
    if grid == 1:
        return images

    def draw(generator: Generator) -> list[Tensor]:
        own = aug.draw(graph.batch, (grid, grid), generator).tiles % grid**2
        ids = arange(graph.batch)[:, None].expand(-1, grid**2 + 2)
        return [ids, torch.stack([own // grid, own % grid], 2)]

    ids, there = graph.feed(draw, 2)
    home, ops, extent = arange(grid**2), graph.ops, graph.image_extent(images)
    here = graph.constant(torch.stack([home // grid, home % grid], 1))
    tile = graph.math.max(extent // grid, 1)
    # First what belongs to no tile, at the right and at the bottom, but at least a pixel: `multi_paste` wants no empty
    # regions, and the tiles that come later cover what is theirs.
    margin = graph.math.max(extent - tile * grid, 1)
    strips = (extent - margin) * graph.constant(torch.tensor([[0, 1], [1, 0]], dtype=torch.int32, device="cpu"))
    return ops.multi_paste(  # images must be HWC of uint8, int16, int32 or float32, no smaller than the grid of tiles
        images,
        in_ids=ids,
        in_anchors=ops.cat(strips, there * tile),
        out_anchors=ops.cat(strips, here * tile),
        shapes=ops.cat(extent - strips, here * 0 + tile),
        output_size=extent,
    )


def _mix_labels(graph: Graph, labels: Any, partner: Any, rest: Any, share: Any, num_classes: int | None) -> Any:
    """Mix labels as `mosaicaug.mix_labels` does, as nodes on the CPU."""
    ops, labels = graph.ops, labels.cpu()
    if num_classes is None:
        labels = ops.reshape(labels, shape=[])  # labels must be one integer each; soft ones need num_classes
        return Targets(labels, ops.permute_batch(labels, indices=partner), rest, share)
    labels = ops.reshape(labels, shape=[-1])
    classes = graph.constant(torch.arange(num_classes, device="cpu"))
    known = graph.item(classes, ops.cast(graph.item(labels, 0), dtype=types.INT32))  # labels must be below num_classes
    hot = (labels == classes) & (known == classes)
    soft = ops.cast(graph.item(graph.shape(labels), 0) > 1, dtype=types.INT32)
    mixed = ops.cast(hot, dtype=types.FLOAT) * (1 - soft) + ops.cast(labels, dtype=types.FLOAT) * soft
    return rest * mixed + share * ops.permute_batch(mixed, indices=partner)
