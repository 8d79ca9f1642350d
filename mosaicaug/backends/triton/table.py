"""`Table`: plans in the form that the Triton kernel reads, one row of 32-bit words and its compile-time facts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mosaicaug.backends.triton.upload import upload
from mosaicaug.contents import Overlay, read_contents
from mosaicaug.plan import Plan


class Table(NamedTuple):
    """Plans of one batch and size, one after another.

    Attributes:
        words: int32 ``[K]``. Per plan its grid and the first word of its tiles; then, if there are overlays, for all
            images the partner, the opacity's bits, ``from_box`` and ``to_box``; then the tiles.
        plans: number of plans.
        batch: B, images of each plan.
        size: output height and width, px.
        grids: tiles per side of every plan; empty if no plan moves a tile.
        overlay: the hardest overlay of all plans.
        blend: True if any opacity is below 1.
    """

    words: Tensor
    plans: int
    batch: int
    size: tuple[int, int]
    grids: tuple[int, ...]
    overlay: Overlay
    blend: bool

    @property
    def grid(self) -> int:
        """Tiles per side; 0 where the plans differ in it."""
        return self.grids[0] if len(set(self.grids)) == 1 else 0

    @property
    def outputs(self) -> int:
        """Number of output images."""
        return self.plans * self.batch

    @property
    def overlay_at(self) -> int:
        """First word of the overlays' fields."""
        return 2 * self.plans

    def __str__(self) -> str:
        moves = f"{self.grid}x{self.grid} tiles" if self.grids else "no moved tiles"
        overlays = f"overlays {self.overlay.name}{' blended' if self.blend else ''}"
        return f"{self.batch} images of {self.size} px with {moves} and {overlays}"

    def can_take(self, other: Table) -> bool:
        """True if a kernel compiled for this table can read ``other`` in its place."""
        same = (self.plans, self.batch, self.size, self.overlay, self.blend, self.words.shape)
        return same == (other.plans, other.batch, other.size, other.overlay, other.blend, other.words.shape) and (
            not other.grids or other.grids == self.grids
        )


class PlanBuffer:
    """Plan in fixed memory of a GPU, so that `mosaicaug.apply` can be captured in a CUDA graph and replayed.

    Args:
        plan: the first plan; it has to use all that later ones will (moved tiles, overlays, blending).
        device: of the images.

    Attributes:
        plan: the plan that it holds now.

    Examples:
        >>> import torch
        >>> from mosaicaug import PlanBuffer, RecursiveMosaic, apply
        >>> aug = RecursiveMosaic(r=3)
        >>> images = torch.rand(8, 3, 32, 32, device="cuda")  # doctest: +SKIP
        >>> buffer = PlanBuffer(aug.sample(images.shape), "cuda")  # doctest: +SKIP
        >>> apply(images, buffer)  # doctest: +SKIP
        >>> with torch.cuda.graph(graph := torch.cuda.CUDAGraph()):  # doctest: +SKIP
        ...     out = apply(images, buffer)
        >>> buffer.copy_(aug.sample(images.shape))  # doctest: +SKIP
        >>> graph.replay()  # doctest: +SKIP
    """

    def __init__(self, plan: Plan, device: torch.device | str = "cuda") -> None:
        table = pack([plan])
        self.plan, self.table = plan, table._replace(words=upload(table.words, torch.device(device)))

    def __len__(self) -> int:
        return len(self.plan)

    @property
    def size(self) -> tuple[int, int]:
        """Output height and width, px."""
        return self.plan.size

    def copy_(self, plan: Plan) -> PlanBuffer:
        """Replace the plan, without waiting for the GPU.

        Args:
            plan: of the same batch, size and grid; it may use no more than the first plan did.

        Returns:
            This buffer.

        Raises:
            ValueError: it has another batch, size or grid, or uses what the first plan did not.
        """
        table = pack([plan], overlay=self.table.overlay, blend=self.table.blend)
        if not self.table.can_take(table):
            raise ValueError(
                f"PlanBuffer: holds {self.table}, got {table}; make one from a plan that uses all that later ones will"
            )
        self.table.words.copy_(upload(table.words, self.table.words.device))
        self.plan = plan
        return self


def make_buffers(plans: Sequence[Plan], device: torch.device) -> list[PlanBuffer]:
    """Make a buffer for each plan, with one upload for all."""
    tables = [pack([plan]) for plan in plans]
    gaps = [table.words.new_zeros(-len(table.words) % 4) for table in tables]  # so that each begins at 16 bytes
    pairs = list(zip(tables, gaps, strict=True))
    words = upload(torch.cat([part for table, gap in pairs for part in (table.words, gap)]), device)
    buffers, begin = list[PlanBuffer](), 0
    for plan, (table, gap) in zip(plans, pairs, strict=True):
        buffer = PlanBuffer.__new__(PlanBuffer)
        length = len(table.words)
        buffer.plan, buffer.table = plan, table._replace(words=words.narrow(0, begin, length))
        begin += length + len(gap)
        buffers.append(buffer)
    return buffers


def pack(plans: Sequence[Plan], *, overlay: Overlay = Overlay.NONE, blend: bool = False) -> Table:
    """Make the table of plans, on the CPU.

    Args:
        plans: of one batch and size.
        overlay: capability that the kernel has at least.
        blend: True to have the kernel blend even if these plans do not.
    """
    first, contents = plans[0], [read_contents(plan) for plan in plans]
    overlay, blend = max(overlay, *(one.overlay for one in contents)), blend or any(one.blends for one in contents)
    fields: list[Tensor] = []
    if overlay:
        fields = [plan.overlay for plan in plans] + [plan.opacity.view(torch.int32) for plan in plans]
        fields += [plan.from_box.flatten() for plan in plans] + [plan.to_box.flatten() for plan in plans]
    tiles = [plan.tiles.flatten() for plan in plans]
    grids = tuple(plan.grid for plan in plans)
    words = torch.cat([_make_heads(len(first), grids, sum(map(len, fields))), *fields, *tiles])
    moves = any(one.moves_tiles for one in contents)
    return Table(words, len(plans), len(first), first.size, grids if moves else (), overlay, blend)


@functools.lru_cache(maxsize=64)
def _make_heads(batch: int, grids: tuple[int, ...], fields: int) -> Tensor:
    """Per plan its grid and the first word of its tiles, behind ``fields`` words."""
    heads, begin = list[int](), 2 * len(grids) + fields
    for grid in grids:
        heads += [grid, begin]
        begin += batch * grid**2
    with torch.inference_mode(False):  # noqa: FBT003
        return torch.tensor(heads, dtype=torch.int32, device="cpu")
