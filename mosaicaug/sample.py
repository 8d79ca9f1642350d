"""Drawing plans: the only place of the package that touches a random number.

A block of uniforms with one row per image, ``[B, k]`` in row-major order, feeds every choice that belongs to one image,
so image i's draw does not depend on how many images follow it. Partners are one permutation of the batch, drawn after
the block. Everything is drawn on the CPU: one seed, one plan, whatever the device of the images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from mosaicaug.plan import Plan

Per = Literal["sample", "batch"]
Permutation = Literal["uniform", "cyclic"]
Chain = Literal["independent", "shared"]

# Source quadrant of each quadrant of a 2x2 shuffle: all 24 permutations, and the six 4-cycles, which are all that the
# published swap chain (four swaps with the first cell, in random order) can make.
_ORDERS = list(itertools.permutations(range(4)))
_SHUFFLES = {
    "uniform": torch.tensor(_ORDERS),
    "cyclic": torch.tensor([q for q in _ORDERS if q[0] and q[q[0]] and q[q[q[0]]]]),
}


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
    return _mosaic(_block(batch, 1 + 2 * r, per, generator), size, p, permutation)


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
        generators = spawn(r + 1, generator)
        blocks = [_block(batch, 1 + 2 * level, per, generators[r - level]) for level in range(r, -1, -1)]
    return [_mosaic(block, size, p, permutation) for block in blocks]


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
    order = block[:, 1:].argsort(1)  # [B, n*n]
    if permutation == "cyclic":
        order = torch.empty_like(order).scatter_(1, order, order.roll(-1, 1))
    return _own_tiles(order, size, block[:, 0] < p)


def cutmix(
    batch: int, size: tuple[int, int], alpha: float, *, p: float, per: Per, true_area: bool, generator: Generator | None
) -> Plan:
    """One box of a partner, pasted at its own place; its area is drawn as 1 - Beta(alpha, alpha)."""
    block = _block(batch, 5, per, generator)
    touched, weight = block[:, 0] < p, _beta(block[:, 1:3], alpha)
    box = _box(weight, block[:, 3:5], size).masked_fill(~touched[:, None], 0)
    drawn = None if true_area else (1 - weight).masked_fill(~touched, 0).float()
    return _overlay(_partners(batch, generator), box, box, torch.ones(batch), size, drawn)


def mixup(batch: int, size: tuple[int, int], alpha: float, *, p: float, per: Per, generator: Generator | None) -> Plan:
    """A whole partner, blended in with a weight of 1 - Beta(alpha, alpha)."""
    block = _block(batch, 3, per, generator)
    touched = block[:, 0] < p
    whole = torch.tensor([0, 0, *size], dtype=torch.int32) * touched[:, None]
    opacity = (1 - _beta(block[:, 1:3], alpha)).float()
    return _overlay(_partners(batch, generator), whole, whole, opacity, size)


def snapmix(batch: int, size: tuple[int, int], beta: float, *, p: float, per: Per, generator: Generator | None) -> Plan:
    """A box of a partner, resampled into another box; both areas are drawn as 1 - Beta(beta, beta)."""
    block = _block(batch, 9, per, generator)
    to_box = _box(_beta(block[:, 1:3], beta), block[:, 3:5], size)
    from_box = _box(_beta(block[:, 5:7], beta), block[:, 7:9], size)
    height, width = torch.stack([box[:, 2:] - box[:, :2] for box in (to_box, from_box)]).unbind(-1)  # [2, B] each
    touched = (block[:, 0] < p) & (height > 0).all(0) & (width > 0).all(0)
    boxes = [box.masked_fill(~touched[:, None], 0) for box in (from_box, to_box)]
    return _overlay(_partners(batch, generator), boxes[0], boxes[1], torch.ones(batch), size)


def one_of(batch: int, weights: Sequence[float], *, per: Per, generator: Generator | None) -> Tensor:
    """Which member makes each image: int64 ``[B]``, member k with a chance of ``weights[k] / sum(weights)``."""
    bounds = torch.tensor(weights, dtype=torch.float64).cumsum(0)
    choice = torch.searchsorted(bounds, _block(batch, 1, per, generator)[:, 0] * bounds[-1], right=True)
    return choice.clamp(max=len(weights) - 1)


def spawn(count: int, generator: Generator | None) -> list[Generator]:
    """A generator for each of several draws, so that none waits for a block as long as the batch before it."""
    seeds = torch.randint(2**63 - 1, (count,), generator=generator)
    return [Generator().manual_seed(int(seed)) for seed in seeds]


def _block(batch: int, columns: int, per: Per, generator: Generator | None) -> Tensor:
    rows = batch if per == "sample" else 1
    return torch.rand(rows, columns, generator=generator, dtype=torch.float64).expand(batch, columns)


def _partners(batch: int, generator: Generator | None) -> Tensor:
    return torch.randperm(batch, generator=generator, dtype=torch.int32)


def _mosaic(block: Tensor, size: tuple[int, int], p: float, permutation: Permutation) -> Plan:
    """``block`` ``[B, 1 + 2r]``: touched, then per level the shuffle and the patch that the next level enters.

    A shuffle moves each quadrant of its window as a whole, so a tile moves by the sum of what its quadrant moves by at
    the level it belongs to and of what the windows round it move by. All steps are in tiles, row-major.
    """
    r = (block.shape[1] - 1) // 2
    side = 2**r
    table, home = _SHUFFLES[permutation], torch.arange(4)
    half = torch.tensor([side >> level for level in range(1, r + 1)])  # [r], side of a quadrant
    quadrant = home // 2 * side + home % 2  # of side 1
    patch = (block[:, 2::2] * 4).long()  # [B, r]
    step = (quadrant[table] - quadrant)[(block[:, 1::2] * len(table)).long()] * half[:, None]  # [B, r, 4]
    around = step.gather(2, patch[..., None])[..., 0]
    step = step + (around.cumsum(1) - around)[..., None]
    corner = quadrant[patch] * half
    corner = corner.cumsum(1) - corner  # [B, r], of the level's window
    order = torch.arange(side * side).repeat(len(block), 1)
    for level in range(r):  # coarse to fine: each window is written over the one round it
        edge = torch.arange(side >> level)
        cell = (edge[:, None] * side + edge).flatten()
        own = (edge[:, None] // half[level] * 2 + edge // half[level]).flatten()
        place = corner[:, level, None] + cell
        order.scatter_(1, place, place + step[:, level].index_select(1, own))
    return _own_tiles(order, size, block[:, 0] < p)


def _own_tiles(order: Tensor, size: tuple[int, int], touched: Tensor) -> Plan:
    batch, count = order.shape
    order = torch.where(touched[:, None], order, torch.arange(count))
    return Plan.of_tiles((order + torch.arange(batch)[:, None] * count).int(), size)


def _beta(uniforms: Tensor, alpha: float) -> Tensor:
    """Beta(alpha, alpha), float64 ``[B]``, exact from two uniforms ``[B, 2]`` (Bailey 1994, Devroye 1996)."""
    cosine = torch.cos(2 * math.pi * uniforms[:, 1])
    spread = (uniforms[:, 0] ** (-1 / alpha) - 1) * cosine**2
    return 0.5 + 0.5 * cosine.sign() / (1 + 1 / spread).sqrt()


def _box(weight: Tensor, centre: Tensor, size: tuple[int, int]) -> Tensor:
    """CutMix's box of relative area ``1 - weight`` round a uniform centre, clipped to the image: int32 ``[B, 4]``."""
    limit = torch.tensor(size)
    middle = (centre * limit).long()  # [B, 2]
    half = (limit * (1 - weight).sqrt()[:, None]).long() // 2
    corners = [(middle - half).clamp(min=0), torch.minimum(middle + half, limit)]
    return torch.cat(corners, 1).int()


def _overlay(
    partners: Tensor,
    from_box: Tensor,
    to_box: Tensor,
    opacity: Tensor,
    size: tuple[int, int],
    drawn: Tensor | None = None,
) -> Plan:
    tiles = torch.arange(len(partners), dtype=torch.int32)[:, None]
    return Plan(size, tiles, partners, from_box, to_box, opacity, drawn)
