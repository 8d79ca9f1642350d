"""Drawing plans: the only place of the package that touches a random number.

A block of uniforms with one row per image, ``[B, k]`` in row-major order, feeds every choice that belongs to one image,
so image i's draw does not depend on how many images follow it. Partners are one permutation of the batch, drawn after
the block. Everything is drawn on the CPU: one seed, one plan, whatever the device of the images.

On a GPU an image costs less than a microsecond and every small torch operation here one to three, so the operations are
few, and none is repeated per level or tile. A test counts them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from mosaicaug.plan import Plan, arange, build_unchecked, no_overlay
from mosaicaug.zorder import Permutation, trace_curve

Per = Literal["sample", "batch"]
Chain = Literal["independent", "shared"]

_HAS_NUMPY = find_spec("numpy") is not None  # torch runs without it, but then has no `Tensor.numpy`


def recursive_mosaic(
    batch: int,
    size: tuple[int, int],
    r: int,
    *,
    p: float,
    per: Per,
    permutation: Permutation,
    generator: Generator | None,
) -> Plan:
    """``r`` nested 2x2 shuffles, each within a random patch of the one before."""
    return _mosaic(batch, _block(batch, 1 + 2 * r, per, generator), size, p, permutation)


def mosaic_phases(
    batch: int,
    size: tuple[int, int],
    r: int,
    *,
    chain: Chain,
    p: float,
    per: Per,
    permutation: Permutation,
    generator: Generator | None,
) -> list[Plan]:
    """Plans of the phases r, r-1, ..., 0; a shared chain draws once, and each phase stops one shuffle earlier."""
    if chain == "shared":
        block = _block(batch, 1 + 2 * r, per, generator)
        blocks = [block[:, : 1 + 2 * level] for level in range(r, -1, -1)]
    else:
        generators = split_generator(r + 1, generator)
        blocks = [_block(batch, 1 + 2 * level, per, generators[r - level]) for level in range(r, -1, -1)]
    return [_mosaic(batch, block, size, p, permutation) for block in blocks]


def jigsaw(
    batch: int,
    size: tuple[int, int],
    n: int,
    *,
    p: float,
    per: Per,
    permutation: Permutation,
    generator: Generator | None,
) -> Plan:
    """A permutation of each image's own ``n`` x ``n`` tiles; "cyclic" is one random cycle through all of them."""
    block = _block(batch, 1 + n * n, per, generator)
    order = _order(block[:, 1:])
    if permutation == "cyclic":
        order = torch.empty_like(order).scatter_(1, order, order.roll(-1, 1))
    return _own_tiles(batch, order.int(), block, size, p)


def cutmix(
    batch: int, size: tuple[int, int], alpha: float, *, p: float, per: Per, true_area: bool, generator: Generator | None
) -> Plan:
    """One box of a partner, pasted at its own place; its area is drawn as 1 - Beta(alpha, alpha)."""
    cut = draw_cutmix(batch, alpha, per=per, generator=generator)
    box = _apply_chance(_box(cut.share, cut.centre, size), cut.block, p)
    drawn = None if true_area else _apply_chance(cut.share[:, None], cut.block, p)[:, 0].float()
    return _overlay(batch, size, cut.partner, box, box, drawn=drawn)


def draw_cutmix(batch: int, alpha: float, *, per: Per, generator: Generator | None) -> BoxDraw:
    """`cutmix` before it knows a size."""
    block = _rows(batch, 5, per, generator)
    share = 1.0 - _beta(block[:, 1:3], alpha)  # with 1, torch would first make a float of it
    return BoxDraw(block, share, block[:, 3:5], _partners(batch, generator))


def mixup(batch: int, size: tuple[int, int], alpha: float, *, p: float, per: Per, generator: Generator | None) -> Plan:
    """A whole partner, blended in with a weight of 1 - Beta(alpha, alpha)."""
    block = _rows(batch, 3, per, generator)
    opacity = (1.0 - _beta(block[:, 1:3], alpha)).float()
    whole = torch.tensor([0, 0, *size], dtype=torch.int32, device="cpu").expand(batch, 4)
    whole = _apply_chance(whole, block, p).contiguous()
    return _overlay(batch, size, _partners(batch, generator), whole, whole, opacity=opacity)


def snapmix(batch: int, size: tuple[int, int], beta: float, *, p: float, per: Per, generator: Generator | None) -> Plan:
    """A box of a partner, resampled into another box; both areas are drawn as 1 - Beta(beta, beta)."""
    cut = draw_snapmix(batch, beta, per=per, generator=generator)
    boxes = _box(cut.share, cut.centre, size)
    y0, x0, y1, x1 = boxes.unbind(2)
    filled = ((y1 > y0) & (x1 > x0)).all(0)
    to_box, from_box = _apply_chance(boxes * filled[:, None], cut.block, p).unbind()
    return _overlay(batch, size, cut.partner, from_box, to_box)


def draw_snapmix(batch: int, beta: float, *, per: Per, generator: Generator | None) -> BoxDraw:
    """`snapmix` before it knows a size; to_box comes before from_box."""
    block = _rows(batch, 9, per, generator)
    draws = torch.stack([block[:, 1:5], block[:, 5:]])  # [2, B, 4]
    share = 1.0 - _beta(draws[..., :2], beta)
    return BoxDraw(block, share, draws[..., 2:], _partners(batch, generator))


class BoxDraw(NamedTuple):
    """Boxes before they know a size: the draw of `_box`."""

    block: Tensor  # float64 [B, k], the uniforms that the draw was made from; the first says who is touched
    share: Tensor  # float64 [..., B], relative areas
    centre: Tensor  # float64 [..., B, 2], relative
    partner: Tensor  # int32 [B]


def one_of(batch: int, weights: Sequence[float], *, per: Per, generator: Generator | None) -> Tensor:
    """Which member makes each image: int64 ``[B]``, member k with a chance of ``weights[k] / sum(weights)``."""
    bounds = torch.tensor(weights, dtype=torch.float64, device="cpu").cumsum(0)
    choice = torch.searchsorted(bounds, _rows(batch, 1, per, generator)[:, 0] * bounds[-1], right=True)
    return choice.clamp(max=len(weights) - 1)


def batch_generator(seed: int, iteration: int = 0, epoch: int = 0) -> Generator:
    """The generator of one batch of a run: ``manual_seed(seed)`` for the first, and another for each of the others.

    Torch's generator reads the lower 32 bits of a seed alone: these odd factors spread them, so that neither the
    batches of a run nor runs of neighbouring seeds meet.
    """
    return Generator().manual_seed((seed + iteration * 0x9E3779B1 + epoch * 0x85EBCA77) % 2**64)


def split_generator(count: int, generator: Generator | None) -> list[Generator]:
    """A generator for each of several draws, so that none waits for a block as long as the batch before it."""
    seeds = torch.randint(2**63 - 1, (count,), generator=generator, device="cpu")
    return [Generator().manual_seed(int(seed)) for seed in seeds]


def _order(uniforms: Tensor) -> Tensor:
    """Places in the order of their uniforms, int64 ``[B, k]``."""
    bits = (uniforms.shape[1] - 1).bit_length()
    if bits > 10:
        return uniforms.view(torch.int64).argsort(1)  # uniforms are in the order of their bits
    # A uniform's 53 bits and its place fit one integer. Numpy sorts these in a sixth of the time of torch's argsort.
    keys = (uniforms * 2.0**53).long().bitwise_left_shift_(bits).add_(torch.arange(uniforms.shape[1], device="cpu"))
    if _HAS_NUMPY:
        keys.numpy().sort()
    else:
        keys = keys.sort(1).values
    return keys.bitwise_and_(2**bits - 1)


def _block(batch: int, columns: int, per: Per, generator: Generator | None) -> Tensor:
    """Uniforms, one row per image or one row for all."""
    rows = batch if per == "sample" else 1
    return torch.rand(rows, columns, generator=generator, dtype=torch.float64, device="cpu")


def _rows(batch: int, columns: int, per: Per, generator: Generator | None) -> Tensor:
    """Uniforms, one row per image; where one draw serves all, the rows are equal."""
    block = _block(batch, columns, per, generator)
    # A real copy: torch takes powers of one repeated number in two ways, which differ in the last bit.
    return block if per == "sample" else block.expand(batch, columns).contiguous()


def _apply_chance(values: Tensor, block: Tensor, p: float) -> Tensor:
    """``values``, but 0 for the images that chance leaves alone."""
    return values if p == 1 else values * (block[:, :1] < p)


def _mosaic(batch: int, block: Tensor, size: tuple[int, int], p: float, permutation: Permutation) -> Plan:
    """``block`` ``[B or 1, 1 + 2r]``: touched, then per level the shuffle and the patch that the next level enters.

    A shuffle moves each quadrant of its window as a whole. So in Z-order the source changes at five edges per level,
    and the running sum of all jumps is the source.
    """
    curve = trace_curve(block.shape[1] // 2, permutation)
    chosen = (block[:, 1:] * curve.choices).floor_()
    edges, kinds = torch.addmm(curve.offset, chosen, curve.weight).long().chunk(2, 1)  # [B or 1, 5r] each
    jumps = curve.home.expand(len(block), -1).scatter_add(1, edges, curve.jumps.take(kinds))
    order = jumps.cumsum(1, dtype=torch.int32).gather(1, curve.place.expand(len(block), -1))
    return _own_tiles(batch, order, block, size, p)


def _own_tiles(batch: int, order: Tensor, block: Tensor, size: tuple[int, int], p: float) -> Plan:
    """The plan that gives each image its own tiles in ``order`` (int32 ``[B or 1, G*G]``)."""
    count = order.shape[1]
    if p < 1:
        order = torch.where(block[:, :1] < p, order, arange(count))
    first = arange(0, batch * count, count)
    return build_unchecked(size, order + first[:, None], *no_overlay(batch))


def _beta(uniforms: Tensor, alpha: float) -> Tensor:
    """Beta(alpha, alpha), float64 ``[...]``, exact from two uniforms ``[..., 2]`` (Bailey 1994, Devroye 1996)."""
    radius, angle = uniforms.unbind(-1)
    cosine = torch.cos(angle * (2 * math.pi))
    spread = radius.pow(-1 / alpha).sub_(1.0).mul_(cosine * cosine)
    return spread.reciprocal_().add_(1.0).rsqrt_().copysign_(cosine).mul_(0.5).add_(0.5)


def _box(share: Tensor, centre: Tensor, size: tuple[int, int]) -> Tensor:
    """CutMix's box of relative area ``share`` round a uniform centre, clipped to the image: int32 ``[..., 4]``."""
    limit, reach, least, most = _frame(size)
    middle = (centre * limit).int()
    half = (share.sqrt()[..., None, None] * reach).int()  # [..., corner, axis]
    return half.add_(middle[..., None, :]).clamp_(least, most).flatten(-2)


@lru_cache
def _frame(size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `_box` needs of a size: itself, from its middle to the corners, and its corners in px."""
    limit = torch.tensor(size, dtype=torch.float64, device="cpu")
    return limit, torch.stack([-limit, limit]) / 2, torch.zeros_like(limit).int(), limit.int()


def _partners(batch: int, generator: Generator | None) -> Tensor:
    """Whom each image's overlay is cut from; drawn last."""
    return torch.randperm(batch, generator=generator, dtype=torch.int32, device="cpu")


def _overlay(
    batch: int,
    size: tuple[int, int],
    partner: Tensor,
    from_box: Tensor,
    to_box: Tensor,
    *,
    opacity: Tensor | None = None,
    drawn: Tensor | None = None,
) -> Plan:
    """The plan that cuts each image's overlay from its partner."""
    opacity = torch.ones(batch, dtype=torch.float32, device="cpu") if opacity is None else opacity
    return build_unchecked(size, arange(batch)[:, None], partner, from_box, to_box, opacity, drawn)
