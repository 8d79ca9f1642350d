"""Laws of the augmentations: checks of their output on coded images (`gates.make_images`), and their draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bench.throughput.batch import MEAN, STD, stored_size
from bench.throughput.cases import Case


class GateError(Exception):
    """Error of a side whose output breaks the law of its case; its message says how."""


class Observed(NamedTuple):
    """Draws read from the output of one batch.

    Args:
        changed: whether any image differs from its original.
        draws: for each image whose draw is visible, its numbers.
        windows: y0, x0 and flip of each image, for a pipeline.
    """

    changed: bool
    draws: list[list[float]]
    windows: Sequence[tuple[int, ...]] = ()


def check_tiles(case: Case, images: Tensor, output: Tensor) -> Observed:  # noqa: ARG001
    """Check that every tile of an image occurs exactly once and whole; for RMG, in nested 2x2 shuffles."""
    ids, y, x = _read_codes(case, output)  # [B, H, W] each
    windows: Sequence[tuple[int, ...]] = ()
    if case.task == "pipeline":
        ids, y, x, windows = _remove_image_windows(case, ids, y, x)
    own = torch.arange(case.batch)[:, None, None]
    _require(bool((ids == own).all()), "a pixel comes from another image")
    assert case.level is not None
    grid = 2**case.level if case.augmentation == "rmg" else case.level
    side = case.size // grid
    row, column = _positions(case.size)
    kept = (y % side == row % side) & (x % side == column % side)
    _require(bool(kept.all()), "pixels moved inside a tile")
    tiles = (y // side * grid + x // side).view(case.batch, grid, side, grid, side)
    order = tiles[:, :, 0, :, 0]  # [B, G, G]
    _require(bool((tiles == order[:, :, None, :, None]).all()), "a tile was torn apart")
    home = torch.arange(grid * grid)
    _require(bool((order.flatten(1).sort(1).values == home).all()), "a tile is missing or occurs twice")
    if case.augmentation == "rmg":
        for image in range(case.batch):
            _check_nested(order[image] // grid, order[image] % grid)
    flat = order.flatten(1)
    return Observed(bool((flat != home).any()), flat.double().tolist(), windows)


def check_boxes(case: Case, images: Tensor, output: Tensor) -> Observed:  # noqa: ARG001
    """Check for one box of one partner at its own position; all other pixels are the image's own."""
    ids, y, x = _read_codes(case, output)
    windows: Sequence[tuple[int, ...]] = ()
    if case.task == "pipeline":
        y, x, windows = _remove_source_windows(case, ids, y, x)
    row, column = _positions(case.size)
    _require(bool(((y == row) & (x == column)).all()), "a pixel is not at its own place")
    draws = []
    for image, seen in enumerate(ids):
        # What a pipeline picked is not known: either of two images may be the one below.
        owners = [image] if case.task == "augment" else _list_values(seen)
        boxes = [box for own in owners if (box := _partner_box(seen, own)) is not None]
        _require(bool(boxes), f"image {image}: what comes from others is not one box of one partner")
        draws += [box for box in sorted(boxes)[-1:] if box]
    return Observed(bool(draws), draws, windows)


def check_weights(case: Case, images: Tensor, output: Tensor) -> Observed:
    """Check for a blend of two whole images with weights of sum 1, rounded once."""
    tolerance = {"float32": 0.01, "uint8": 0.75, "bfloat16": 2.0}[case.dtype]  # truncating uint8 is off by 1
    draws = []
    for image in range(case.batch):
        if float((output[image] - images[image]).abs().max()) <= tolerance:
            continue
        others = [images[other] for other in range(case.batch) if other != image]
        error, weight = min(_fit_blend(output[image], images[image], other) for other in others)
        _require(error <= tolerance, f"image {image} is no blend of two with weights of sum 1: off by {error:.2f}")
        _require(-0.01 <= weight <= 1.01, f"image {image}: the partner's weight is {weight:.3f}")
        draws.append([weight])
    return Observed(bool(draws), draws)


def check_resampled_boxes(case: Case, images: Tensor, output: Tensor) -> Observed:
    """Check for one box of a partner, resampled (bilinear, corners aligned) into a box of the image."""
    tolerance = 0.01 if case.dtype == "float32" else 0.51
    changed, draws = False, []
    for image in range(case.batch):
        moved = (output[image] - images[image]).abs().amax(0) > tolerance
        if not moved.any():
            continue
        changed = True
        y0, x0, y1, x1 = _bounding_box(moved)
        ids, y, x = output[image, :, y0:y1, x0:x1]
        partner = round(float(ids[0, 0]))
        _require(bool(((ids - partner).abs() <= 0.01).all()), f"image {image}: the box has more than one source")
        if partner == image:  # pixels that met their own place hide the box's edges, and with them its corners
            _require(_is_ramp(y, 0, 2 * tolerance) and _is_ramp(x, 1, 2 * tolerance), f"image {image}: no ramp")
            continue
        _require(bool(moved[y0:y1, x0:x1].all()), f"image {image}: what changed is not one box")
        even = _is_ramp(y, 0, tolerance) and _is_ramp(x, 1, tolerance)
        _require(even, f"image {image}: the box is not resampled evenly, corner to corner")
        ends = [float(value) for value in (y[0, 0], x[0, 0], y[-1, -1], x[-1, -1])]
        whole = all(abs(end - round(end)) <= 0.01 for end in ends)
        _require(whole, f"image {image}: the corners of the box are not pixels of the partner")
        draws.append([y0, x0, y1, x1, *ends])
    return Observed(changed, draws)


LAWS: dict[str, Callable[[Case, Tensor, Tensor], Observed]] = {
    "rmg": check_tiles,
    "jigsaw": check_tiles,
    "cutmix": check_boxes,
    "mixup": check_weights,
    "snapmix": check_resampled_boxes,
}


def _require(fine: bool, message: str) -> None:
    if not fine:
        raise GateError(message)


def _read_codes(case: Case, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Source of every pixel: image, row and column, int64 ``[B, H, W]`` each."""
    if case.task == "pipeline":
        mean, std = (torch.tensor(values, dtype=output.dtype)[:, None, None] for values in (MEAN, STD))
        output = output * std + mean
    codes = output.round()
    _require(bool(((output - codes).abs() <= 0.01).all()), "a pixel is not a stored one")
    ids, y, x = codes.long().unbind(1)
    return ids, y, x


def _positions(size: int) -> tuple[Tensor, Tensor]:
    return torch.arange(size)[:, None], torch.arange(size)


def _remove_image_windows(
    case: Case, ids: Tensor, y: Tensor, x: Tensor
) -> tuple[Tensor, Tensor, Tensor, list[tuple[int, ...]]]:
    """Codes relative to each image's window, where pixels move within one image: the whole window is visible."""
    first = ids[:, :1, :1]
    _require(bool((ids == first).all()), "a pixel comes from another image")
    _require(len(_list_values(first)) == case.batch, "a stored image was picked twice")
    top, left = y.amin((1, 2)), x.amin((1, 2))
    flip = x[:, 0, 0] > x[:, 0, 1]
    y, x = y - top[:, None, None], x - left[:, None, None]
    x = torch.where(flip[:, None, None], case.size - 1 - x, x)
    windows = [tuple(window) for window in torch.stack([top, left, flip.long()], 1).tolist()]
    return torch.arange(case.batch)[:, None, None].expand_as(ids), y, x, windows


def _remove_source_windows(
    case: Case, ids: Tensor, y: Tensor, x: Tensor
) -> tuple[Tensor, Tensor, list[tuple[int, ...]]]:
    """Codes relative to each source's window, where images are mixed without moving pixels."""
    row, column = (position.expand_as(ids) for position in _positions(case.size))
    y, x = y.clone(), x.clone()
    windows: list[tuple[int, ...]] = []
    for source in _list_values(ids):
        here = ids == source
        top, straight, mirrored = ((code[here]) for code in (y - row, x - column, x + column - case.size + 1))
        flip = not _is_constant(straight)
        left = mirrored if flip else straight
        room = stored_size(case.size) - case.size
        fits = _is_constant(top) and _is_constant(left) and 0 <= int(top[0]) <= room and 0 <= int(left[0]) <= room
        _require(fits, f"stored image {source} does not show through one window")
        y[here], x[here] = row[here], column[here]
        windows.append((int(top[0]), int(left[0]), int(flip)))
    _require(len(windows) <= case.batch, "more stored images show than were picked")
    return y, x, windows


def _list_values(codes: Tensor) -> list[int]:
    return sorted(set(codes.flatten().tolist()))


def _is_constant(values: Tensor) -> bool:
    return bool((values == values[0]).all())


def _partner_box(ids: Tensor, own: int) -> list[float] | None:
    """Box of one partner on image ``own``; empty if all pixels are its own, None if the others form no box."""
    other = ids != own
    if not other.any():
        return []
    y0, x0, y1, x1 = _bounding_box(other)
    inside = ids[y0:y1, x0:x1]
    return [y0, x0, y1, x1] if bool((inside == inside[0, 0]).all()) else None


def _bounding_box(mask: Tensor) -> tuple[int, int, int, int]:
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _check_nested(row: Tensor, column: Tensor) -> None:
    """Check for a 2x2 shuffle of a window of tiles ``[G, G]``, at most one quadrant shuffled further."""
    side = len(row) // 2
    shuffled = []
    for top in (0, side):
        for left in (0, side):
            y, x = (code[top : top + side, left : left + side] for code in (row, column))
            same = bool((y // max(side, 1) == y[:1, :1] // max(side, 1)).all())
            same = same and bool((x // max(side, 1) == x[:1, :1] // max(side, 1)).all())
            _require(same, "tiles left their quadrant by another way than as a whole")
            y, x = y % max(side, 1), x % max(side, 1)
            if not bool(((y == torch.arange(side)[:, None]) & (x == torch.arange(side))).all()):
                shuffled.append((y, x))
    _require(len(shuffled) < 2, "more than one quadrant was shuffled further")
    for y, x in shuffled:
        _check_nested(y, x)


def _fit_blend(made: Tensor, own: Tensor, other: Tensor) -> tuple[float, float]:
    """Least-squares blend of two images: its largest error, and its weight of ``other``."""
    step = other - own
    weight = ((made - own) * step).sum() / (step * step).sum()
    return float((own + weight * step - made).abs().max()), float(weight)


def _is_ramp(values: Tensor, axis: int, tolerance: float) -> bool:
    """Test for values that run evenly from first to last along ``axis`` and are constant across it."""
    lines = values if axis == 0 else values.mT
    steps = torch.linspace(0, 1, len(lines), dtype=lines.dtype)[:, None]
    return bool((lines - torch.lerp(lines[0, 0], lines[-1, 0], steps)).abs().max() <= tolerance)
