"""Contents of plans: facts that choose the code that carries them out, known from the draw or read from fields."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch

from mosaicaug.plan import Plan


class Overlay(IntEnum):
    """Kinds of overlays; each includes those before it."""

    NONE = 0
    WHOLE = 1  # each box is the whole image, or (0, 0, 0, 0)
    IN_PLACE = 2  # from_box == to_box
    ELSEWHERE = 3  # boxes of one size
    RESAMPLED = 4  # boxes of two sizes


class Contents(NamedTuple):
    """Facts of a plan that choose the code that carries it out.

    Attributes:
        moves_tiles: False if every tile is at home.
        overlay: hardest overlay that it may have.
        blends: False if every overlay is opaque.
    """

    moves_tiles: bool
    overlay: Overlay = Overlay.NONE
    blends: bool = False


# Of plans as they were drawn: a law says at once what its plans contain, and reading the fields takes 25 to 50 us, the
# time of many launches. Copies and changed plans are other keys; fields that were written since have another version.
_drawn: WeakKeyDictionary[Plan, tuple[Contents, int]] = WeakKeyDictionary()


def remember_contents(plan: Plan, contents: Contents) -> Plan:
    """Keep what the law of a plan, just drawn, says about it; returns the plan."""
    if not torch.is_inference_mode_enabled():  # whose tensors have no versions
        _drawn[plan] = contents, _read_version(plan)
    return plan


def read_contents(plan: Plan) -> Contents:
    """Contents of a plan: those of its law, or else read from the fields."""
    contents, version = _drawn.get(plan, (None, 0))
    if contents is not None and version == _read_version(plan):
        return contents
    moves_tiles, laid = plan.moves_tiles, plan.has_overlay
    if not laid.any():
        return Contents(moves_tiles)
    blends = bool((laid & (plan.opacity < 1)).any())
    apart = (plan.from_box != plan.to_box).any(1) & laid
    if not apart.any():
        image = torch.tensor([0, 0, *plan.size], device="cpu")
        whole = (plan.to_box == image).all(1) | (plan.to_box == 0).all(1)
        return Contents(moves_tiles, Overlay.WHOLE if whole.all() else Overlay.IN_PLACE, blends)
    extents = [box[:, 2:] - box[:, :2] for box in (plan.from_box, plan.to_box)]
    resampled = (laid[:, None] & (extents[0] != extents[1])).any()
    return Contents(moves_tiles, Overlay.RESAMPLED if resampled else Overlay.ELSEWHERE, blends)


def _read_version(plan: Plan) -> int:
    """Number that grows whenever a field is written in place."""
    fields = plan.tiles, plan.overlay, plan.from_box, plan.to_box, plan.opacity
    return sum(field._version for field in fields)
