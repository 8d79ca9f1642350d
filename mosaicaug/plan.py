"""`Plan`: the source of every output pixel of a batch, as one immutable value."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Plan:
    """Source of every pixel of B output images: a tiled base with at most one overlay each.

    The images are cut into G x G equal tiles of ``H // G`` by ``W // G`` px; a margin of fewer than G px at the right
    and at the bottom belongs to no tile and stays where it is. Boxes are ``y0, x0, y1, x1`` in px, half open.

    Args:
        size: output height and width, px.
        tiles: int32 ``[B, G*G]``, source of each output tile: ``image * G*G + row * G + column``.
        overlay: int32 ``[B]``, image that the overlay is cut from.
        from_box: int32 ``[B, 4]``, the cut in the overlay image.
        to_box: int32 ``[B, 4]``, where the cut lands in the output; empty means no overlay. Boxes of different sizes
            are resampled (bilinear, corners aligned).
        opacity: float32 ``[B]``, 1 replaces, below 1 blends: ``(1 - opacity) * base + opacity * overlay``.
        drawn_share: float32 ``[B]``, label share of the overlay where it is to be kept as it was drawn and not
            counted in pixels (``CutMix(true_area=False)``); None otherwise.

    Raises:
        ValueError: a field has another shape or dtype, or points outside the batch or the image.
        TypeError: a field is no tensor, or the size is not two integers.

    Examples:
        >>> from mosaicaug import Plan
        >>> plan = Plan.identity(2, (8, 8)).refine(2)
        >>> plan.grid, len(plan), plan.tiles.tolist()
        (2, 2, [[0, 1, 2, 3], [4, 5, 6, 7]])
    """

    size: tuple[int, int]
    tiles: Tensor
    overlay: Tensor
    from_box: Tensor
    to_box: Tensor
    opacity: Tensor
    drawn_share: Tensor | None = None

    def __post_init__(self) -> None:
        """ValueError for fields of another shape, dtype or device, or with values out of range."""
        object.__setattr__(self, "size", _read_size(self.size))
        shape = tuple(getattr(self.tiles, "shape", ()))
        batch = shape[0] if len(shape) == 2 else -1
        wanted: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "tiles": (torch.int32, (batch, shape[-1] if shape else 0)),
            "overlay": (torch.int32, (batch,)),
            "from_box": (torch.int32, (batch, 4)),
            "to_box": (torch.int32, (batch, 4)),
            "opacity": (torch.float32, (batch,)),
            "drawn_share": (torch.float32, (batch,)),
        }
        for name, (dtype, shape) in wanted.items():
            value = getattr(self, name)
            if value is None and name == "drawn_share":
                continue
            if not isinstance(value, Tensor):
                raise TypeError(f"Plan: {name} must be a tensor, got {type(value).__name__}")
            if (value.dtype, tuple(value.shape), value.device.type) != (dtype, shape, "cpu"):
                raise ValueError(
                    f"Plan: {name} must be {dtype} {list(shape)} on the CPU, "
                    f"got {value.dtype} {list(value.shape)} on {value.device}"
                )
        if self.grid**2 != self.tiles.shape[1] or self.grid < 1:
            raise ValueError(f"Plan: tiles must hold G*G tiles per image, got {self.tiles.shape[1]}")
        if self.grid > 1 and self.grid > min(self.size):
            raise ValueError(f"Plan: a grid of {self.grid} needs images of at least {self.grid} px, got {self.size}")
        if batch > 0 and not torch.compiler.is_compiling():  # a compiler sees no values
            self._check_values(batch)

    def _check_values(self, batch: int) -> None:
        """ValueError for numbers that point outside the batch or the image."""
        for name, places, count in (("tiles", self.tiles, batch * self.grid**2), ("overlay", self.overlay, batch)):
            low, high = (int(place) for place in torch.aminmax(places))
            if low < 0 or high >= count:
                raise ValueError(f"Plan: {name} must lie in 0..{count - 1}, got {low}..{high}")
        near, far = torch.stack([self.from_box, self.to_box]).view(2, batch, 2, 2).unbind(2)  # [2, B, axis] each
        extent, ends = far - near, far.amax((0, 1)).tolist()
        if near.min() < 0 or extent.min() < 0 or any(end > limit for end, limit in zip(ends, self.size, strict=True)):
            raise ValueError(f"Plan: boxes must be y0, x0, y1, x1 inside {self.size} with y0 <= y1 and x0 <= x1")
        has_from, has_to = (extent > 0).all(2)
        if (has_to > has_from).any():
            image = int((has_to > has_from).nonzero()[0])
            raise ValueError(f"Plan: image {image} has an empty from_box for a non-empty to_box")
        for name, share in (("opacity", self.opacity), ("drawn_share", self.drawn_share)):
            if share is not None and not (share.min() >= 0 and share.max() <= 1):  # NaN is neither
                raise ValueError(f"Plan: {name} must lie in 0..1, got {share.tolist()}")

    def __len__(self) -> int:
        return self.tiles.shape[0]

    def to(self, *_: Any, **__: Any) -> Plan:
        """Return the plan itself: plans stay on the CPU, also in a batch that Lightning moves to another device."""
        return self

    @property
    def grid(self) -> int:
        """Tiles per side, G."""
        return math.isqrt(self.tiles.shape[1])

    @property
    def home(self) -> Tensor:
        """Tiles of the plan that moves nothing, int32 ``[B, G*G]``."""
        return arange(self.tiles.numel()).view(self.tiles.shape)

    @property
    def moves_tiles(self) -> bool:
        """True if any tile is away from home."""
        return not torch.equal(self.tiles, self.home)

    @property
    def has_overlay(self) -> Tensor:
        """Images that carry an overlay, bool ``[B]``."""
        y0, x0, y1, x1 = self.to_box.unbind(1)
        return (y1 > y0) & (x1 > x0)

    @classmethod
    def identity(cls, batch: int, size: tuple[int, int]) -> Plan:
        """Make the plan of ``batch`` images of ``size`` px that moves nothing."""
        return cls.of_tiles(arange(batch)[:, None], size)

    @classmethod
    def of_tiles(cls, tiles: Tensor, size: tuple[int, int]) -> Plan:
        """Make the plan that moves ``tiles`` (int32 ``[B, G*G]``) and lays nothing over them."""
        return cls(size, tiles, *no_overlay(len(tiles)))

    def refine(self, factor: int) -> Plan:
        """Express the plan on a grid ``factor`` times finer.

        Args:
            factor: parts that each side of a tile is cut into.

        Raises:
            ValueError: the tiles cannot be cut into ``factor`` equal parts, so the margin would change.

        Examples:
            >>> from mosaicaug import Plan
            >>> Plan.identity(1, (8, 8)).refine(2).refine(3).grid
            6
        """
        if factor < 1:
            raise ValueError(f"Plan.refine: factor must be at least 1, got {factor}")
        old, new = self.grid, self.grid * factor
        if factor == 1:
            return self
        tile = (self.size[0] // old, self.size[1] // old)
        if (tile[0] % factor or tile[1] % factor) and self.moves_tiles:
            raise ValueError(f"Plan.refine: tiles of {tile[0]}x{tile[1]} px cannot be cut into {factor} equal parts")
        position = arange(new)
        coarse = self.tiles.view(-1, old, old)[:, position // factor][:, :, position // factor]  # [B, new, new]
        image, row, column = coarse // (old * old), coarse // old % old, coarse % old
        part = position % factor
        fine = (image * new + row * factor + part[:, None]) * new + column * factor + part
        return replace(self, tiles=fine.flatten(1))

    def compose(self, then: Plan) -> Plan:
        """Join two plans into one: ``apply(apply(x, a), b)`` equals ``apply(x, a.compose(b))``.

        Args:
            then: the plan to carry out after this one.

        Raises:
            ValueError: the batches or sizes differ, or the result has more parts than one plan can hold (a moved or
                second overlay, or an overlay cut from an image whose tiles were moved).
        """
        if (len(self), self.size) != (len(then), then.size):
            raise ValueError(
                f"Plan.compose: both need one batch and size, got {len(self)} x {self.size}, {len(then)} x {then.size}"
            )
        if self.has_overlay.any() or self.drawn_share is not None:
            if then.moves_tiles or then.has_overlay.any():
                raise ValueError("Plan.compose: the first plan's overlay would be moved or covered; apply one by one")
            return self
        away = (self.tiles != self.home).any(1)
        if away[then.overlay[then.has_overlay].long()].any():
            raise ValueError("Plan.compose: the overlay would be cut from an image with moved tiles; apply one by one")
        grid = math.lcm(self.grid, then.grid)
        first, second = self.refine(grid // self.grid), then.refine(grid // then.grid)
        return replace(second, tiles=first.tiles.flatten()[second.tiles.long()])

    def invert(self) -> Plan:
        """Make the plan that puts every tile back: ``plan.compose(plan.invert())`` is the identity.

        Raises:
            ValueError: the plan has an overlay, or a tile is used twice.
        """
        if self.has_overlay.any():
            raise ValueError("Plan.invert: what an overlay covered is gone; only tile permutations can be inverted")
        moved, home = self.tiles.flatten().long(), self.home.flatten()
        inverse = torch.full_like(home, -1).scatter(0, moved, home)
        if (inverse < 0).any():
            raise ValueError("Plan.invert: tiles must be a permutation, but one is used twice")
        return replace(self, tiles=inverse.view_as(self.tiles))

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain lists and numbers, ready for ``json.dumps``.

        Examples:
            >>> from mosaicaug import Plan
            >>> plan = Plan.identity(1, (4, 4))
            >>> Plan.from_dict(plan.to_dict()).tiles.tolist()
            [[0]]
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """Make a plan of the values that ``to_dict`` gave.

        Raises:
            ValueError: a field is missing, unknown or malformed.
        """
        names, got = {field.name for field in fields(cls)}, [*values] if isinstance(values, dict) else values
        if not isinstance(values, dict) or set(values) - names or names - set(values) - {"drawn_share"}:
            raise ValueError(f"Plan.from_dict: needs the fields {sorted(names)}, got {got!r}")
        try:
            batch = len(values["tiles"])
            columns = {"tiles": -1 if batch else 1, "from_box": 4, "to_box": 4}  # an empty list has lost its width
            parsed: dict[str, Any] = {"size": tuple(values["size"])}
            for name in sorted(names - {"size"}):
                if values.get(name) is not None:
                    exact = torch.tensor(values[name], dtype=torch.float64, device="cpu")
                    tensor = exact.float() if name in ("opacity", "drawn_share") else exact.int()
                    if tensor.dtype == torch.int32 and not torch.equal(tensor.double(), exact):
                        raise TypeError(f"{name} must hold integers of 32 bits")
                    parsed[name] = tensor.view(batch, columns[name]) if name in columns else tensor
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"Plan.from_dict: a field is malformed: {error}") from error
        return cls(**parsed)


def build_unchecked(
    size: tuple[int, int],
    tiles: Tensor,
    overlay: Tensor,
    from_box: Tensor,
    to_box: Tensor,
    opacity: Tensor,
    drawn_share: Tensor | None = None,
) -> Plan:
    """Make a plan of fields that are right by construction: checking them would take as long as drawing them."""
    if torch.compiler.is_compiling():  # which follows constructors alone
        return Plan(size, tiles, overlay, from_box, to_box, opacity, drawn_share)
    plan = object.__new__(Plan)
    vars(plan).update(
        size=(int(size[0]), int(size[1])),
        tiles=tiles,
        overlay=overlay,
        from_box=from_box,
        to_box=to_box,
        opacity=opacity,
        drawn_share=drawn_share,
    )
    return plan


def no_overlay(batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fields ``overlay``, ``from_box``, ``to_box`` and ``opacity`` of a plan that lays nothing over its tiles."""
    no_box = torch.zeros(batch, 4, dtype=torch.int32, device="cpu")
    return arange(batch), no_box, no_box, torch.ones(batch, dtype=torch.float32, device="cpu")


def arange(*limits: int) -> Tensor:
    """Range in the dtype and on the device of a plan: int32 on the CPU."""
    return torch.arange(*limits, dtype=torch.int32, device="cpu")


def _read_size(size: Any) -> tuple[int, int]:
    """Height and width as Python's integers; TypeError for anything but two integers."""
    try:
        height, width = size
        index = int if torch.compiler.is_compiling() else operator.index
        return index(height), index(width)
    except (TypeError, ValueError) as error:
        raise TypeError(f"Plan: size must be two integers, height and width, got {size!r}") from error


def overlay_share(plan: Plan) -> Tensor:
    """Share of each output image that its overlay makes up, float32 ``[B]``: as drawn, or counted in pixels."""
    if plan.drawn_share is not None:
        return plan.drawn_share
    height, width = plan.size
    return (plan.opacity.double() * _area(plan.to_box) / max(height * width, 1)).float()


def _area(boxes: Tensor) -> Tensor:
    """Area of each box ``[B, 4]``, px: ``[B]``."""
    return (boxes[:, 2] - boxes[:, 0]).long() * (boxes[:, 3] - boxes[:, 1])
