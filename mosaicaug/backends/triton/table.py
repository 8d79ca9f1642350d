"""`Table`: plans in the form that the Triton kernel reads, one row of 32-bit words and its compile-time facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

from mosaicaug.plan import Plan


class Overlay(IntEnum):
    """Capability of the kernel for overlays; each includes those before it."""

    NONE = 0
    IN_PLACE = 1  # from_box == to_box
    ELSEWHERE = 2  # boxes of one size
    RESAMPLED = 3  # boxes of two sizes


@dataclass(frozen=True)
class Table:
    """Plans of one batch and size, one after another.

    Args:
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
        self.plan, self.table = plan, replace(table, words=upload(table.words, torch.device(device)))

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


def pack(plans: Sequence[Plan], *, overlay: Overlay = Overlay.NONE, blend: bool = False) -> Table:
    """Make the table of plans, on the CPU.

    Args:
        plans: of one batch and size.
        overlay: capability that the kernel has at least.
        blend: True to have the kernel blend even if these plans do not.
    """
    first = plans[0]
    kinds = [_overlay_kind(plan) for plan in plans]
    overlay, blend = max(overlay, *(kind for kind, _ in kinds)), blend or any(blends for _, blends in kinds)
    fields: list[Tensor] = []
    if overlay:
        names = ("overlay", "opacity", "from_box", "to_box")
        fields = [getattr(plan, name).view(torch.int32).flatten() for name in names for plan in plans]
    tiles = [plan.tiles.flatten() for plan in plans]
    begin, heads = 2 * len(plans) + sum(map(len, fields)), list[int]()
    for plan, row in zip(plans, tiles, strict=True):
        heads += [plan.grid, begin]
        begin += len(row)
    words = torch.cat([torch.tensor(heads, dtype=torch.int32, device="cpu"), *fields, *tiles])
    moves = any(plan.moves_tiles for plan in plans)
    grids = tuple(plan.grid for plan in plans) if moves else ()
    return Table(words, len(plans), len(first), first.size, grids, overlay, blend)


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Copy to the device, without the host waiting for it."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def _overlay_kind(plan: Plan) -> tuple[Overlay, bool]:
    """Hardest overlay of a plan, and True if any is blended in."""
    laid = plan.has_overlay
    if not laid.any():
        return Overlay.NONE, False
    blend = bool((laid & (plan.opacity < 1)).any())
    apart = (plan.from_box != plan.to_box).any(1) & laid
    if not apart.any():
        return Overlay.IN_PLACE, blend
    extents = [box[:, 2:] - box[:, :2] for box in (plan.from_box, plan.to_box)]
    resampled = (laid[:, None] & (extents[0] != extents[1])).any()
    return Overlay.RESAMPLED if resampled else Overlay.ELSEWHERE, blend
