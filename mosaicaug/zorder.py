"""Nested 2x2 shuffles: the source tile of every tile of a recursive mosaic.

A mosaic of r recursions has r levels. Level 0 shuffles the quadrants of the image and enters one of them, level 1
shuffles that quadrant's own quadrants and enters one of them, and so on down to single tiles.

**The rule.** Number the ``4**r`` tiles in Z-order, in base 4: digit l of a tile says which quadrant of the level-l
window it is in (0 and 1 above, 2 and 3 below). Then digit l of its source is ``shuffle_l[d_l]`` if the digits before it
are the path of entered quadrants, and ``d_l`` otherwise.

*r = 1.* With ``shuffle_0 = (2, 0, 3, 1)`` the tiles ``0 1 / 2 3`` show ``2 0 / 3 1``.

*r = 2.* With the same ``shuffle_0``, quadrant 1 entered, and ``shuffle_1 = (1, 0, 2, 3)``:

- tile ``12``: its first digit is the path, so the source is ``shuffle_0[1] shuffle_1[2] = 02``;
- tile ``10``: likewise ``shuffle_0[1] shuffle_1[0] = 01``;
- tile ``32``: its first digit is not the path, so the source is ``shuffle_0[3] 2 = 12``.

>>> uniforms = torch.tensor([[13.5 / 24, 0.25, 6.5 / 24, 0.0]], dtype=torch.float64)
>>> nested_shuffles(uniforms, "uniform").view(4, 4).tolist()  # numbered row by row
[[8, 9, 1, 0], [12, 13, 4, 5], [10, 11, 2, 3], [14, 15, 6, 7]]

**The implementation.** Digit by digit the rule takes torch 4 to 10 times as long as what is done here (122 us for 256
images of r = 3, plan included). In Z-order every quadrant is one run of tiles, so the offset from tile to source
changes at five edges per level only. `nested_shuffles` looks up where these edges are and how far the source jumps at
each, adds the jumps to those of an image at home, and takes the running sum. The plain rule is its twin in the tests.
"""

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
SHUFFLES = {"uniform": _ORDERS, "cyclic": [q for q in _ORDERS if q[0] and q[q[0]] and q[q[q[0]]]]}


def nested_shuffles(uniforms: Tensor, permutation: Permutation) -> Tensor:
    """Source tile of each tile of r nested shuffles, numbered row by row within the image.

    Args:
        uniforms: float64 ``[B, 2r]`` in 0..1; per level, the shuffle and the quadrant that the next level enters.
        permutation: "uniform" over all 24 shuffles, or "cyclic", the six that leave no quadrant in place.

    Returns:
        int32 ``[B, 4**r]``.
    """
    batch, tables = len(uniforms), _make_tables(uniforms.shape[1] // 2, permutation)
    # 1. Choose: per level, the number of a shuffle and of a quadrant.
    choices = (uniforms * tables.num_choices).long()
    # 2. Translate choices into edges: at which tile in Z-order each lies, and which jump happens there.
    # Of integers, which torch multiplies by itself: MKL would wake threads.
    edge_tiles, jump_numbers = torch.addmm(tables.edge_bias, choices, tables.edge_weight).chunk(2, 1)
    # 3. Add the jumps of all levels, and sum them up along the curve: the source of each tile in Z-order.
    jumps = tables.home_jumps.expand(batch, -1).scatter_add(1, edge_tiles, tables.jumps.take(jump_numbers))
    sources = jumps.cumsum(1, dtype=torch.int32)
    # 4. Back from Z-order to rows.
    return sources.gather(1, tables.z_numbers.expand(batch, -1))


class _Tables(NamedTuple):
    """Constants of `nested_shuffles` for one r and one law."""

    num_choices: Tensor  # float64 [2r], per level: how many shuffles, how many quadrants to enter
    edge_weight: Tensor  # int64 [2r, 10r]: choices @ edge_weight + edge_bias are the tiles of all 5r edges,
    edge_bias: Tensor  # int64 [10r]: and then the numbers in `jumps` of the jumps there
    jumps: Tensor  # int32 [r * shuffles * 5], change of source - tile at each edge of each shuffle of each level
    home_jumps: Tensor  # int32 [4**r + 1], steps from tile to tile along the curve where nothing is moved
    z_numbers: Tensor  # int64 [4**r], number in Z-order of each tile, row by row


@lru_cache(maxsize=8)
def _make_tables(r: int, permutation: Permutation) -> _Tables:
    """The tables of r levels; kept, since making them takes longer than using them, and so made as ordinary tensors."""
    with torch.inference_mode(False), torch.device("cpu"):  # noqa: FBT003
        shuffles, level, edge = torch.tensor(SHUFFLES[permutation]), torch.arange(r), torch.arange(5)
        # 1. Geometry: a quadrant of level l is `run` tiles along the curve, and `half` tiles wide.
        run, half = 4 ** (r - 1 - level), 2 ** (r - 1 - level)
        corner = torch.tensor([0, 1, 2**r, 2**r + 1])  # of a window's quadrants, row by row, for half = 1
        # 2. Jumps: the difference of neighbouring quadrants' offsets from home; outside of the window these are 0.
        offsets = F.pad(corner[shuffles] - corner, (1, 1)) * half[:, None, None]  # [r, shuffles, 6]
        # 3. Edges: at the window's start, which entered quadrants determine, and after each of its quadrants.
        weight = torch.zeros(r, 2, 2, r, 5, dtype=torch.int64)  # level and kind of choice; jump or tile, level, edge
        weight[:, 0, 1] = 5 * torch.eye(r, dtype=torch.int64)[..., None]
        weight[:, 1, 0] = (run[:, None] * torch.ones(r, r, dtype=torch.int64).triu(1))[..., None]
        bias = torch.stack([run[:, None] * edge, level[:, None] * len(shuffles) * 5 + edge])
        # 4. The curve itself: the tiles, numbered row by row, in Z-order.
        curve = torch.zeros(1, dtype=torch.int64)
        for side in half.tolist():
            curve = (curve[:, None] + corner * side).flatten()
        return _Tables(
            num_choices=torch.tensor([len(shuffles), 4] * r, dtype=torch.float64),
            edge_weight=weight.view(2 * r, 10 * r),
            edge_bias=bias.flatten(),
            jumps=offsets.diff().flatten().int(),
            home_jumps=F.pad(curve, (1, 1)).diff().int(),
            z_numbers=curve.argsort(),
        )
