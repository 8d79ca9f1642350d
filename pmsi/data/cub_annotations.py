"""Bounding boxes and part locations of CUB-200-2011, in pixels of the network's crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmsi.data.layouts.base import read_lines
from pmsi.data.layouts.cub import locate_cub
from pmsi.data.pixels import read_size
from pmsi.runtime.files import expand_home


@dataclass(frozen=True)
class Annotations:
    """Boxes and parts of the birds in resized, centrally cropped images; None for what the data set does not mark.

    Args:
        boxes: float32 ``[N, 4]``; may reach beyond the crop.
        parts: float32 ``[N, P, 2]``, NaN where a part is hidden.
    """

    boxes: Tensor | None
    parts: Tensor | None


def read_annotations(root: Path, files: Sequence[Path], *, resize: int, crop: int) -> Annotations:
    """Read CUB-200-2011's ``bounding_boxes.txt`` and ``parts/part_locs.txt``, as far as they are there.

    Args:
        root: folder of ``images.txt``, or its parent with ``CUB_200_2011/``.
        files: the N images in ``images/``, in the order wanted; opened for their sizes, upright.
        resize: both sides of every image became it, px.
        crop: side of the central crop that the network sees, px.

    Raises:
        FileNotFoundError: no ``images.txt``, or an image is not there.
        ValueError: a file that ``images.txt`` does not list, or an image without annotations.
    """
    root = locate_cub(expand_home(root))
    lines = [line.split(maxsplit=1) for line in read_lines(root / "images.txt") if line.strip()]
    ids = {name.strip(): int(number) for number, name in lines}
    names = [file.relative_to(root / "images").as_posix() for file in files]
    unknown = [name for name in names if name not in ids]
    if unknown:
        raise ValueError(f"cub: images.txt does not list {unknown[0]} ({len(unknown)} of {len(names)} files)")
    wanted = [ids[name] for name in names]
    sizes = np.array([read_size(file) for file in files]).reshape(-1, 1, 2)
    margin = (resize - crop) // 2

    def to_crop(points: NDArray[np.float64]) -> Tensor:
        """Convert ``[N, P, 2]`` from px of the files to px of the crop."""
        return torch.from_numpy(points * resize / sizes - margin).float()

    boxes = parts = None
    if (path := root / "bounding_boxes.txt").exists():
        table = _read_groups(path, wanted)[:, :1]  # [N, 1, 4]: x, y, width, height
        corners = np.concatenate([table[..., :2], table[..., :2] + table[..., 2:]], 1)  # [N, 2, 2]: x, y
        boxes = to_crop(corners[..., ::-1]).flatten(1)
    if (path := root / "parts" / "part_locs.txt").exists():
        table = _read_groups(path, wanted)  # [N, P, 4]: part, x, y, visible
        parts = to_crop(np.where(table[..., 3:] > 0, table[..., 2:0:-1], np.nan))
    return Annotations(boxes, parts)


def _read_groups(path: Path, wanted: Sequence[int]) -> NDArray[np.float64]:
    """Read lines of "image a b c d" as ``[N, lines of an image, 4]``, NaN where an image has fewer."""
    rows: dict[int, list[list[float]]] = {}
    for number, *values in np.loadtxt(read_lines(path), ndmin=2).tolist():
        if len(values) != 4:
            raise ValueError(f"cub: {path.name} must hold 5 numbers a line, got {1 + len(values)}")
        rows.setdefault(int(number), []).append(values)
    lacking = [number for number in wanted if number not in rows]
    if lacking:
        raise ValueError(f"cub: {path.name} lacks image {lacking[0]} ({len(lacking)} of {len(wanted)} images)")
    table = np.full((len(wanted), max(map(len, rows.values())), 4), np.nan)
    for row, number in enumerate(wanted):
        table[row, : len(rows[number])] = rows[number]
    return table
