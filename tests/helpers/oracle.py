"""Oracle: the meaning of a plan, pixel by pixel in plain loops, that every backend is held to.

A plan comes as the bare numbers of its fields, and nothing of the package under test is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Numbers = np.ndarray[Any, Any]
Fields = Mapping[str, Any]  # size, tiles, overlay, from_box, to_box and opacity, as lists and numbers
Window = Sequence[Sequence[int]] | None
Index = Sequence[int] | None


class Source(NamedTuple):
    """One stored pixel and what it weighs in an output pixel."""

    weight: float
    image: int
    y: int
    x: int


DTYPES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]  # of images


def seeded(seed: int) -> torch.Generator:
    """Make the generator of a test's random numbers."""
    return torch.Generator().manual_seed(seed)


def number_pixels(shape: Sequence[int], dtype: torch.dtype = torch.float32, layout: str = "contiguous") -> Tensor:
    """Images whose every pixel carries its own address, or that modulo 251 where the dtype holds no more."""
    values = torch.arange(math.prod(shape), dtype=torch.float64).view(*shape)
    if dtype in (torch.uint8, torch.float16, torch.bfloat16):
        values = values % 251
    images = values.to(dtype)
    if layout == "channels_last":
        return images.movedim(-3, -1).contiguous().movedim(-1, -3)
    if layout == "strided":
        wide = torch.zeros(*shape[:-2], shape[-2] + 3, 2 * shape[-1] + 1, dtype=dtype)
        wide[..., 2 : 2 + shape[-2], 1 : 1 + 2 * shape[-1] : 2] = images
        return wide[..., 2 : 2 + shape[-2], 1 : 1 + 2 * shape[-1] : 2]
    assert layout == "contiguous"
    return images


def copy_pixels(images: Tensor, plan: Fields, *, window: Window = None, index: Index = None) -> Tensor:
    """The output of a plan that only copies, with the very bits of ``images``."""
    batch, (height, width) = len(plan["tiles"]), plan["size"]
    out = torch.zeros(batch, *images.shape[1:-2], height, width, dtype=images.dtype)
    for entry in range(batch):
        for y in range(height):
            for x in range(width):
                [source] = list_sources(plan, entry, y, x, window=window, index=index)
                assert source.weight == 1
                out[entry, ..., y, x] = images[source.image, ..., source.y, source.x]
    return out


def blend_pixels(images: Tensor, plan: Fields, *, window: Window = None, index: Index = None) -> Tensor:
    """The output of any plan before it is rounded, float64."""
    batch, (height, width) = len(plan["tiles"]), plan["size"]
    stored = images.double()
    out = torch.zeros(batch, *images.shape[1:-2], height, width, dtype=torch.float64)
    for entry in range(batch):
        for y in range(height):
            for x in range(width):
                for source in list_sources(plan, entry, y, x, window=window, index=index):
                    out[entry, ..., y, x] += source.weight * stored[source.image, ..., source.y, source.x]
    return out


def mask_pixels(
    plan: Fields, entry: int, y: int, x: int, *, window: Window = None, index: Index = None
) -> set[tuple[int, int, int]]:
    """Stored pixels (image, y, x) that a mask may show there: the heaviest, or any of several as heavy."""
    weights: dict[tuple[int, int, int], float] = {}
    seen = list_sources(plan, entry, y, x, window=window, index=index)
    for place, source in enumerate(seen):
        blended = place > 0 and plan["opacity"][entry] <= 0.5  # the image itself comes first, and is as heavy at least
        weights.setdefault(source[1:], 0.0 if blended else source.weight)
    return {pixel for pixel, weight in weights.items() if weight > max(weights.values()) - 1e-5}


def list_sources(
    plan: Fields, entry: int, y: int, x: int, *, window: Window = None, index: Index = None
) -> list[Source]:
    """The stored pixels that make output pixel ``y, x`` of batch entry ``entry``, those of weight 0 left out."""
    width = plan["size"][1]
    seen = [(1.0, *_base_source(plan, entry, y, x))]
    top, left, bottom, right = plan["to_box"][entry]
    if top <= y < bottom and left <= x < right:
        opacity, partner = plan["opacity"][entry], plan["overlay"][entry]
        from_top, from_left, from_bottom, from_right = plan["from_box"][entry]
        rows = _taps(y - top, bottom - top, from_bottom - from_top)
        columns = _taps(x - left, right - left, from_right - from_left)
        seen = [(1 - opacity, *seen[0][1:])]
        for row, row_weight in rows:
            for column, column_weight in columns:
                seen.append((opacity * row_weight * column_weight, partner, from_top + row, from_left + column))
    return [Source(weight, *_look_through(e, v, u, width, window, index)) for weight, e, v, u in seen if weight > 0]


def _base_source(plan: Fields, entry: int, y: int, x: int) -> tuple[int, int, int]:
    height, width = plan["size"]
    grid = math.isqrt(len(plan["tiles"][entry]))
    tile_height, tile_width = height // grid, width // grid
    if y >= grid * tile_height or x >= grid * tile_width:
        return entry, y, x
    tile = plan["tiles"][entry][(y // tile_height) * grid + x // tile_width]
    image, rest = divmod(tile, grid * grid)
    row, column = divmod(rest, grid)
    return image, row * tile_height + y % tile_height, column * tile_width + x % tile_width


def _taps(offset: int, length: int, source_length: int) -> list[tuple[int, float]]:
    """Source pixels of one axis and their weights, corners aligned; one length of both is a copy."""
    if length == 1:
        return [(0, 1.0)]
    near, rest = divmod(offset * (source_length - 1), length - 1)
    part = rest / (length - 1)
    return [(near, 1 - part), (near + 1, part)] if rest else [(near, 1.0)]


def _look_through(entry: int, y: int, x: int, width: int, window: Window, index: Index) -> tuple[int, int, int]:
    if window is not None:
        top, left, flip = window[entry]
        y, x = y + top, (width - 1 - x if flip else x) + left
    return (entry if index is None else index[entry]), y, x


def count_overlay(plan: Fields) -> list[float]:
    """Share of each output image that its overlay makes up, pixel by pixel."""
    height, width = plan["size"]
    shares = []
    for (top, left, bottom, right), opacity in zip(plan["to_box"], plan["opacity"], strict=True):
        covered = sum(top <= y < bottom and left <= x < right for y in range(height) for x in range(width))
        shares.append(opacity * covered / (height * width))
    return shares


def weigh_snapmix(plan: Fields, labels: Sequence[Any], maps: Sequence[Any]) -> tuple[list[float], list[float]]:
    """SnapMix's published weights: own class outside ``to_box``, partner's class inside ``from_box``."""
    height, width = plan["size"]
    weights_a, weights_b = [], []
    for entry, partner in enumerate(plan["overlay"]):
        to_box, from_box = plan["to_box"][entry], plan["from_box"][entry]
        area = (to_box[2] - to_box[0]) * (to_box[3] - to_box[1])
        if area == 0:
            weights_a.append(1.0)
            weights_b.append(0.0)
            continue
        weight_a = 1 - _map_mass(maps[entry], to_box, (height, width))
        weight_b = _map_mass(maps[partner], from_box, (height, width))
        if labels[entry] == labels[partner]:
            weight_a = weight_b = weight_a + weight_b
        share = area / (height * width)
        weights_a.append(1 - share if math.isnan(weight_a) else weight_a)
        weights_b.append(share if math.isnan(weight_b) else weight_b)
    return weights_a, weights_b


def _map_mass(values: Sequence[Sequence[float]], box: Sequence[int], size: tuple[int, int]) -> float:
    """Share of a map, stretched to ``size`` with its least value taken off, that lies in ``box``."""
    full = [[_stretch(values, y, x, size) for x in range(size[1])] for y in range(size[0])]
    flat = [value for row in full for value in row]
    if any(math.isnan(value) for value in flat):
        return math.nan
    least, total = min(flat), math.fsum(flat) - len(flat) * min(flat)
    if total <= 1e-12 * len(flat) * max(map(abs, flat), default=0.0):  # constant: no mass to share
        return math.nan
    inside = [full[y][x] - least for y in range(box[0], box[2]) for x in range(box[1], box[3])]
    return math.fsum(inside) / total / (1 + 1e-8)


def _stretch(values: Sequence[Sequence[float]], y: int, x: int, size: tuple[int, int]) -> float:
    """Bilinear, pixel centres kept (``align_corners=False``)."""
    taps = []
    for place, length, stored in ((y, size[0], len(values)), (x, size[1], len(values[0]))):
        position = max((place + 0.5) * stored / length - 0.5, 0.0)
        near = min(int(position), stored - 1)
        taps.append(((near, 1 - (position - near)), (min(near + 1, stored - 1), position - near)))
    return math.fsum(down * across * values[row][column] for row, down in taps[0] for column, across in taps[1])


def chi_square_p(counts: Numbers) -> float:
    """Chance of counts as uneven as these if all categories are equally likely."""
    expected = counts.sum() / counts.size
    statistic = float(((counts - expected) ** 2 / expected).sum())
    shape, scale = (torch.tensor(value, dtype=torch.float64) for value in ((counts.size - 1) / 2, statistic / 2))
    return float(torch.special.gammaincc(shape, scale))


def ks_p(distance: float, count: float) -> float:
    """Chance of so large a Kolmogorov-Smirnov distance (Stephens' approximation)."""
    scaled = (math.sqrt(count) + 0.12 + 0.11 / math.sqrt(count)) * distance
    return min(1.0, 2 * sum((1 if k % 2 else -1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101)))


def compare_samples(one: Numbers, two: Numbers) -> float:
    """Two-sample Kolmogorov-Smirnov test; ties only make the chance that it gives larger."""
    points = np.concatenate([one, two])
    below = [np.searchsorted(np.sort(values), points, side="right") / len(values) for values in (one, two)]
    return ks_p(float(np.abs(below[0] - below[1]).max()), len(one) * len(two) / len(points))


def beta_cdf(x: Numbers, alpha: float) -> Numbers:
    """Distribution function of Beta(alpha, alpha), by integration over t**alpha, which removes the pole at 0."""
    grid = np.linspace(0, 0.5**alpha, 20001)
    density = (1 - grid ** (1 / alpha)) ** (alpha - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    half = np.interp(np.minimum(x, 1 - x) ** alpha, grid, mass / mass[-1]) / 2
    return np.asarray(np.where(x <= 0.5, half, 1 - half))


def draw_published_boxes(count: int, alpha: float, size: tuple[int, int], seed: int) -> Numbers:
    """CutMix's box as published, drawn by numpy."""
    random = np.random.default_rng(seed)
    ratio = np.sqrt(1 - random.beta(alpha, alpha, count))
    corners = []
    for extent in size:
        centre, cut = random.integers(0, extent, count), (extent * ratio).astype(np.int64)
        corners.append([np.clip(centre - cut // 2, 0, extent), np.clip(centre + cut // 2, 0, extent)])
    return np.stack([corners[0][0], corners[1][0], corners[0][1], corners[1][1]], 1).astype(np.float64)
