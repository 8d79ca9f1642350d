"""Random arguments of `mosaicaug.apply`: a case is a few words and numbers, everything else follows from its seed.

Hypothesis draws and shrinks cases; a case that fails is kept as JSON and needs no Hypothesis to be tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from mosaicaug import Plan
from tests.helpers.oracle import DTYPES, Numbers

TILES = ("home", "own", "blocks", "few", "batch", "any")
OWN_TILES = TILES[:4]  # labels and slots of annotations follow the image's own tiles
OVERLAYS = ("none", "in place", "moved", "resampled", "mixed")
COPIED_OVERLAYS = OVERLAYS[:3]
BLENDS = ("opaque", "one", "mixed")
LAYOUTS = ("contiguous", "channels_last", "strided", "offset", "transposed", "expanded", "overlapping")
DTYPE_NAMES = tuple(str(dtype).removeprefix("torch.") for dtype in DTYPES)
WEIGHTS = (0.0, 0.5, 1.0, 1e-7, 1e-45, float(np.nextafter(np.float32(1), np.float32(0))))
NORMALISATIONS = ((False, False), (False, False), (True, True), (True, False), (False, True))  # with mean, with std


@dataclass(frozen=True)
class Case:
    """A batch of images with a plan for it, and the other arguments of `apply`.

    Args:
        seed: of tiles, boxes, partners, opacities, windows, indices and pixels.
        batch: images that are made.
        grid: tiles per side.
        tiles: "own" permutes each image's, "blocks" those of a coarser grid, "few" moves one or two; "batch" permutes
            those of all images, "any" takes some twice.
        overlay: "none", "in place", "moved" (one size), "resampled", or "mixed" over the batch.
        blend: opacities: "opaque", "one" for all images, or "mixed".
        frames: of a video; 0 for images.
        stored: images that ``index`` picks from; 0 for no index.
        room: rows and columns beyond the plan's size, which ``window`` crops; -1 for no window.
        flips: windows mirror some entries.
        layout: of the images in memory.
        out_dtype: asked for; "" for none.
        out_layout: memory format asked for, likewise.
        into: pass ``out=``.
        special: random bits as pixels, NaN and infinities included, where the plan only copies.
        small_blocks: let a backend work in blocks of a few rows, and past the cache, as it does on large images.
        augmentation: that draws the plan, in place of ``tiles`` and ``overlay``; see `tests.properties.drawn`.
    """

    seed: int
    batch: int = 1
    height: int = 4
    width: int = 4
    grid: int = 1
    tiles: str = "home"
    overlay: str = "none"
    blend: str = "opaque"
    channels: int = 1
    frames: int = 0
    stored: int = 0
    room: int = -1
    flips: bool = False
    dtype: str = "float32"
    layout: str = "contiguous"
    out_dtype: str = ""
    out_layout: str = ""
    into: bool = False
    mean: bool = False
    std: bool = False
    special: bool = False
    small_blocks: bool = False
    augmentation: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        return asdict(self)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the outputs, px."""
        return self.height, self.width

    @property
    def only_copies(self) -> bool:
        """True if no pixel is computed."""
        opaque = self.blend == "opaque" or self.overlay == "none"
        return opaque and self.overlay in COPIED_OVERLAYS and not self.mean and not self.std and not self.out_dtype

    def make_plan(self) -> Plan:
        """Make the plan, which checks its fields."""
        return Plan.from_dict(self.make_fields())

    def make_fields(self) -> dict[str, Any]:
        """Make the fields of the plan as lists and numbers."""
        random = np.random.default_rng([self.seed, 0])
        from_box, to_box = self._make_boxes(random)
        partners = random.permutation(self.batch) if random.random() < 0.5 else _choose(random, self.batch, self.batch)
        opacity = np.ones(self.batch)
        if self.blend != "opaque":
            opacity = np.where(random.random(self.batch) < 0.5, random.choice(WEIGHTS, self.batch), opacity)
            opacity = np.where(random.random(self.batch) < 0.5, random.random(self.batch), opacity)
        if self.blend == "one" and self.batch:
            opacity[:] = opacity[0]
        return {
            "size": [self.height, self.width],
            "tiles": self._make_tiles(random).tolist(),
            "overlay": partners.tolist(),
            "from_box": from_box.tolist(),
            "to_box": to_box.tolist(),
            "opacity": opacity.astype(np.float32).astype(float).tolist(),
        }

    def _make_tiles(self, random: np.random.Generator) -> Numbers:
        count, batch, grid = self.grid**2, self.batch, self.grid
        home = np.arange(batch * count).reshape(batch, count)
        if self.tiles == "any":
            return _choose(random, home.size, home.size).reshape(home.shape)
        if self.tiles == "batch":
            return random.permutation(home.size).reshape(home.shape)
        if self.tiles == "own":
            return np.asarray(random.permuted(home, axis=1))
        if self.tiles == "few" and count > 1 and batch:
            one, other = random.choice(count, 2, replace=False)
            entry = random.integers(batch)
            home[entry, [one, other]] = home[entry, [other, one]]
        if self.tiles == "blocks" and batch:
            coarse = max(side for side in range(1, max(grid // 2, 1) + 1) if grid % side == 0)
            side = grid // coarse
            order = random.permuted(np.tile(np.arange(coarse**2), (batch, 1)), axis=1).reshape(batch, coarse, coarse)
            row, column = order // coarse, order % coarse  # of each block's source
            place = np.arange(grid)
            row, column = (values[:, place // side][:, :, place // side] for values in (row, column))
            inner = place % side
            own = (row * side + inner[:, None]) * grid + column * side + inner
            home = own.reshape(batch, count) + np.arange(batch)[:, None] * count
        return home

    def _make_boxes(self, random: np.random.Generator) -> tuple[Numbers, Numbers]:
        kind = np.full(self.batch, OVERLAYS.index(self.overlay))
        if self.overlay == "mixed":
            kind = random.integers(0, 4, self.batch)
        target, source = (
            np.stack([_choose_spans(random, self.batch, side) for side in self.size], 1) for _ in range(2)
        )  # [B, axis, 2]
        extent = target[..., 1] - target[..., 0]
        start = (random.random(extent.shape) * (np.array(self.size) - extent + 1)).astype(np.int64)
        moved = np.stack([start, start + extent], 2)
        kind = kind[:, None, None]
        source = np.where(kind == 1, target, np.where(kind == 2, moved, source))
        hidden = (source[..., 1] == source[..., 0]).any(1)[:, None, None] | (kind == 0)
        target = np.where(hidden, target[..., :1], target)  # empty, at any place
        return tuple(boxes.swapaxes(1, 2).reshape(self.batch, 4) for boxes in (source, target))  # type: ignore[return-value]

    def make_images(self) -> Tensor:
        """Make the images in their layout, of the CPU."""
        random = np.random.default_rng([self.seed, 1])
        extra = (0, 0) if self.room < 0 else (self.room, (self.room * 7 + 3) % 5)
        lead = (self.frames,) if self.frames else ()
        shape = (self.stored or self.batch, *lead, self.channels, self.height + extra[0], self.width + extra[1])
        dtype = getattr(torch, self.dtype)
        draw = self._draw_bits if self.special and self.only_copies else self._draw_values
        return lay_out(self.layout, shape, lambda count: draw(random, count, dtype))

    def _draw_bits(self, random: np.random.Generator, count: int, dtype: torch.dtype) -> Tensor:
        if not count:
            return torch.empty(0, dtype=dtype)
        return torch.from_numpy(random.integers(0, 256, count * dtype.itemsize, dtype=np.uint8)).view(dtype)

    def _draw_values(self, random: np.random.Generator, count: int, dtype: torch.dtype) -> Tensor:
        if dtype == torch.uint8:
            return self._draw_bits(random, count, dtype)
        scale = random.choice([1.0, 255.0, 1e-3, 1000.0])
        return torch.from_numpy(scale * random.standard_normal(count)).to(dtype)

    def make_options(self, images: Tensor) -> dict[str, Any]:
        """Make the other arguments of `apply`; ``index`` and ``window`` in any dtype, or as lists."""
        random = np.random.default_rng([self.seed, 2])
        options: dict[str, Any] = {}
        if self.stored:
            options["index"] = self._make_integers(random, _choose(random, self.batch, self.stored))
        if self.room >= 0:
            room = [have - want for have, want in zip(images.shape[-2:], self.size, strict=True)]
            columns = [_choose(random, self.batch, side + 1) for side in room]
            columns.append(_choose(random, self.batch, 2) * self.flips)
            options["window"] = self._make_integers(random, np.stack(columns, 1))
        if self.mean:
            options["mean"] = (100 * random.random(self.channels)).tolist()
        if self.std:
            options["std"] = (0.01 + 50 * random.random(self.channels)).tolist()
        if self.out_dtype:
            options["dtype"] = getattr(torch, self.out_dtype)
        if self.out_layout:
            options["memory_format"] = getattr(torch, self.out_layout)
        return options

    def _make_integers(self, random: np.random.Generator, values: Numbers) -> Any:
        kind = random.choice(["int64", "int32", "int16", "uint8", "list"])
        return (
            values.tolist()
            if kind == "list" and self.batch
            else torch.from_numpy(values).to(torch.int64 if kind == "list" else getattr(torch, kind))
        )


def lay_out(layout: str, shape: tuple[int, ...], draw: Callable[[int], Tensor]) -> Tensor:
    """Images ``[N, *lead, C, H, W]`` in a layout; ``draw`` gives that many fresh elements."""
    *first, channels, height, width = shape
    if layout == "contiguous":
        return _view(draw, shape)
    if layout == "channels_last":
        return _view(draw, (*first, height, width, channels)).movedim(-1, -3)
    if layout == "strided":  # with gaps along every axis
        wide = _view(draw, (*(2 * length for length in first), channels + 1, height + 3, 2 * width + 1))
        part = wide[tuple(slice(None, None, 2) for _ in first)]
        return part[..., 1 : 1 + channels, 2 : 2 + height, 1 : 1 + 2 * width : 2]
    if layout == "offset":
        return draw(int(np.prod(shape)) + 3)[3:].view(shape)
    if layout == "transposed":  # columns of pixels lie in memory
        return _view(draw, (*first, channels, width, height)).transpose(-1, -2)
    if layout == "expanded":  # all images, or all channels, are one
        if first[0] > channels:
            return _view(draw, (1, *shape[1:])).expand(shape)
        return _view(draw, (*first, 1, height, width)).expand(shape)
    assert layout == "overlapping"  # rows share pixels, as windows of a panorama do
    row = width // 2 + 1
    strides, step = [row, 1], (height - 1) * row + width
    for length in reversed([*first, channels]):
        strides.insert(0, step)
        step *= length
    memory = draw(step)
    return memory.as_strided(shape, strides)


def _view(draw: Callable[[int], Tensor], shape: tuple[int, ...]) -> Tensor:
    return draw(int(np.prod(shape))).view(shape)


def _choose(random: np.random.Generator, count: int, limit: int) -> Numbers:
    """Whole numbers below a limit; the least and the largest often."""
    values = random.integers(0, max(limit, 1), count)
    ends = random.random(count)
    return np.where(ends < 0.15, 0, np.where(ends > 0.85, max(limit - 1, 0), values))


def _choose_spans(random: np.random.Generator, count: int, side: int) -> Numbers:
    """Spans ``[count, 2]`` of an axis: any, whole, one pixel, or empty."""
    spans = np.sort(np.stack([_choose(random, count, side + 1) for _ in range(2)], 1), 1)
    kind, begin = random.random(count)[:, None], random.integers(0, max(side, 1), count)[:, None]
    spans = np.where(kind < 0.15, [[0, side]], spans)
    return np.where(kind > 0.85, np.concatenate([begin, begin + 1], 1), spans)


@st.composite
def draw_cases(
    draw: st.DrawFn,
    *,
    tiles: tuple[str, ...] = TILES,
    overlays: tuple[str, ...] = OVERLAYS,
    blends: tuple[str, ...] = BLENDS,
    batches: tuple[int, int] = (0, 64),
    sides: tuple[int, int] = (1, 16),
    stored: bool = True,
    pixels: bool = True,
) -> Case:
    """Strategy of cases.

    Args:
        draw: Hypothesis' own.
        tiles: kinds of tiles; ``overlays`` and ``blends`` likewise.
        overlays: kinds of overlays.
        blends: kinds of opacities.
        batches: least and most images.
        sides: least and most pixels of a side.
        stored: with index and window.
        pixels: with dtypes, layouts and normalisation.
    """
    height, width = draw(st.integers(*sides)), draw(st.integers(*sides))
    case: dict[str, Any] = {
        "seed": draw(st.integers(0, 2**32 - 1)),
        "batch": draw(st.integers(*batches)),
        "height": height,
        "width": width,
        "grid": draw(st.integers(1, min(height, width, 8))),
        "tiles": draw(st.sampled_from(tiles)),
        "overlay": draw(st.sampled_from(overlays)),
        "blend": draw(st.sampled_from(blends)),
    }
    if stored:
        case["stored"] = draw(st.sampled_from([0, 0, 1, 3, 9]))
        case["room"] = draw(st.sampled_from([-1, -1, 0, 2, 5]))
        case["flips"] = case["room"] >= 0 and draw(st.booleans())
    if pixels:
        case |= {
            "channels": draw(st.integers(1, 5)),
            "frames": draw(st.sampled_from([0, 0, 0, 1, 2])),
            "dtype": draw(st.sampled_from(DTYPE_NAMES)),
            "layout": draw(st.sampled_from(LAYOUTS)),
            "out_dtype": draw(st.sampled_from(["", "", "", *DTYPE_NAMES])),
            "out_layout": draw(st.sampled_from(["", "", "contiguous_format", "channels_last"])),
            "into": draw(st.booleans()),
            "special": draw(st.booleans()),
            "small_blocks": draw(st.booleans()),
        }
        case["mean"], case["std"] = draw(st.sampled_from(NORMALISATIONS))
    return Case(**case)
