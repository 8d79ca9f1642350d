"""Traffic of a launch in memory: sectors of 32 and lines of 128 bytes that warps ask for, from executed addresses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from tests.helpers.ptx.machine import Access
    from tests.helpers.ptx.memory import Array

SECTOR, LINE, WARP = 32, 128, 32
_NONE = np.iinfo(np.int64).max


@dataclass
class Side:
    """Loads or stores of pixels."""

    bytes: int = 0  # that lanes asked for
    sectors: int = 0  # of each warp's request: without a cache
    lines: int = 0  # of each warp's request: passes of the L1 cache
    of_programs: int = 0  # distinct sectors of each program: what L2 serves if L1 keeps a program's lines
    seen: list[Array] = field(default_factory=list)


class Watcher:
    """Counter of the accesses of a launch; `see` is the ``watch`` of `tests.helpers.ptx.launch.execute`."""

    def __init__(self, images: Tensor, out: Tensor) -> None:
        self.load, self.store = Side(), Side()
        self.spans = [_span(images), _span(out)]

    def see(self, access: Access) -> None:
        """Count one access of all threads, unless it is to a small tensor."""
        low, high = self.spans[access.store]
        address, mask = access.address, access.mask
        if not (mask & (address >= low) & (address < high)).any():
            return
        side = self.store if access.store else self.load
        side.bytes += int(mask.sum()) * access.width
        warps, active = address.reshape(-1, WARP), mask.reshape(-1, WARP)
        side.sectors += _count_distinct(warps // SECTOR, active)
        side.lines += _count_distinct(warps // LINE, active)
        program = np.broadcast_to(np.arange(len(address))[:, None], address.shape)[mask]
        side.seen.append(np.unique((program << 40) | (address[mask] - (low - low % LINE)) // SECTOR))

    def finish(self) -> tuple[Side, Side]:
        """Loads and stores of all programs that were seen."""
        for side in (self.load, self.store):
            side.of_programs = len(np.unique(np.concatenate(side.seen))) if side.seen else 0
            side.seen = []
        return self.load, self.store


def count_tile_sectors(tiles: Array, height: int, width: int) -> int:
    """Sectors of the rows that an output's tiles are read from, where tiles that lie side by side are read as one.

    Args:
        tiles: ``[G, G]``, number of each output tile's source in one image, row by row.
        height, width: of a plane, which begins at a sector: rows, and bytes of a row.
    """
    grid = len(tiles)
    tile_height, tile_width = height // grid, width // grid
    row, column = tiles // grid, tiles % grid
    follows = np.zeros_like(tiles, dtype=np.bool_)  # its left neighbour in the source
    follows[:, 1:] = (tiles[:, 1:] == tiles[:, :-1] + 1) & (column[:, 1:] > 0)
    first = np.flatnonzero(~follows)  # tile that each run begins with
    length = np.diff(np.append(first, grid * grid))
    lines = row.reshape(-1)[first] * tile_height + np.arange(tile_height)[:, None]
    begin = lines * width + column.reshape(-1)[first] * tile_width
    end = begin + length * tile_width
    return int(((end - 1) // SECTOR - begin // SECTOR + 1).sum())


def _span(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.data_ptr() + storage.nbytes()


def _count_distinct(units: Array, active: Array) -> int:
    """Number of distinct units in each row of active lanes, summed."""
    units = np.sort(np.where(active, units, _NONE), 1)
    fresh = np.concatenate([np.ones((len(units), 1), np.bool_), units[:, 1:] != units[:, :-1]], 1)
    return int((fresh & (units != _NONE)).sum())
