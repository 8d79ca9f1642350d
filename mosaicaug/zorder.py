"""Nested 2x2 shuffles as jumps along a Z-order curve: the tables behind `sampling.recursive_mosaic`."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Permutation = Literal["uniform", "cyclic"]
# Source quadrant of each quadrant of a 2x2 shuffle: all 24 permutations, and the six 4-cycles, which are all that the
# published swap chain (four swaps with the first cell, in random order) can make.
_ORDERS = list(itertools.permutations(range(4)))
SHUFFLES = {
    "uniform": torch.tensor(_ORDERS),
    "cyclic": torch.tensor([q for q in _ORDERS if q[0] and q[q[0]] and q[q[q[0]]]]),
}


class _Curve(NamedTuple):
    """The tiles of r nested windows in Z-order, where each quadrant of each window is one run.

    Choices are, per level, the shuffle of the window's quadrants and the patch that the next level enters. Where the
    five edges of a level's quadrants lie follows from patches; how far the source tile jumps there, from the shuffle.
    """

    choices: Tensor  # float64 [2r], how many there are of each
    weight: Tensor  # float64 [2r, 10r]: chosen @ weight + offset are all edges, and then
    offset: Tensor  # float64 [10r], the places in `jumps` of what happens there
    jumps: Tensor  # int32 [r * shuffles * 5]
    home: Tensor  # int32 [4**r + 1], jumps of the tiles of a plan that moves nothing
    place: Tensor  # int64 [4**r], of the image's tiles in Z-order


@lru_cache(maxsize=8)
def trace_curve(r: int, permutation: Permutation) -> _Curve:
    with torch.device("cpu"):
        shuffles, level, edge = SHUFFLES[permutation], torch.arange(r), torch.arange(5)
        run, half = 4 ** (r - 1 - level), 2 ** (r - 1 - level)  # tiles of a quadrant, and of its side
        quadrant = torch.tensor([0, 1, 2**r, 2**r + 1])
        moves = F.pad(quadrant[shuffles] - quadrant, (1, 1)) * half[:, None, None]  # [r, shuffles, 6], none outside
        weight = torch.zeros(r, 2, 2, r, 5, dtype=torch.float64)  # level and kind of choice; edge or place, level, edge
        weight[:, 0, 1] = 5 * torch.eye(r)[..., None]
        weight[:, 1, 0] = (run[:, None] * torch.ones(r, r, dtype=torch.float64).triu(1))[..., None]
        offset = torch.stack([run[:, None] * edge, level[:, None] * len(shuffles) * 5 + edge])
        source = torch.zeros(1, dtype=torch.int64)
        for side in half.tolist():
            source = (source[:, None] + quadrant * side).flatten()
        return _Curve(
            choices=torch.tensor([len(shuffles), 4] * r, dtype=torch.float64),
            weight=weight.view(2 * r, 10 * r),
            offset=offset.flatten().double(),
            jumps=moves.diff().flatten().int(),
            home=F.pad(source, (1, 1)).diff().int(),
            place=source.argsort(),
        )
