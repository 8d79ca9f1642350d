"""Photographs that a network is asked about: found, read upright, resized and cropped; without torch."""

from __future__ import annotations

import glob
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pmsi.data.layouts.base import is_hidden
from pmsi.data.pixels import SUFFIXES, read_pixels, resize_pixels
from pmsi.deployment.description import Description
from pmsi.runtime.cores import count_workers
from pmsi.runtime.files import expand_home


def list_photos(words: Sequence[str]) -> list[Path]:
    """List the files that words name: each is a file, a folder (with all below it), or a pattern such as ``*.jpg``.

    Raises:
        FileNotFoundError: nothing is there. ValueError: a folder or pattern without images.
    """
    found: list[Path] = []
    for word in words:
        path = expand_home(Path(word))
        if path.is_dir():
            inside = sorted(path.rglob("*"))
            images = [one for one in inside if _is_image(one.relative_to(path)) and one.is_file()]
            if not images:
                raise ValueError(f"{word} holds no images (files that end in .jpg, .png, .webp and so on)")
            found += images
        elif path.exists():
            found.append(path)
        elif glob.has_magic(word):
            matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - a pattern in any part
            images = [one for one in map(Path, matches) if one.is_file()]
            if not images:
                raise ValueError(f"no file fits the pattern {word}")
            found += images
        else:
            raise FileNotFoundError(f"there is no file or folder {word}")
    return list(dict.fromkeys(found))


def read_photo(path: Path, description: Description) -> NDArray[np.uint8]:
    """Read one photograph as the network takes it, uint8 ``[3, crop, crop]``.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        pixels = read_pixels(path)
    except Exception as error:  # Pillow's decoders raise anything from SyntaxError to struct.error
        reason = "it is empty" if path.is_file() and not path.stat().st_size else str(error) or type(error).__name__
        raise ValueError(f"cannot read {path} ({reason})") from error
    return crop_center(resize_pixels(pixels, description.resize, description.resize), description.crop)


def crop_center(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Central square of ``[h, w, 3]`` as ``[3, side, side]``."""
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side].transpose(2, 0, 1))


def fetch_photos(
    paths: Sequence[Path], description: Description, workers: int | None = None
) -> Iterator[tuple[Path, NDArray[np.uint8] | ValueError]]:
    """Read photographs on all cores, in order; for one that cannot be read, the error."""

    def read(path: Path) -> NDArray[np.uint8] | ValueError:
        try:
            return read_photo(path, description)
        except ValueError as error:
            return error

    threads, left = max(1, count_workers(workers, alone=True)), iter(paths)
    with ThreadPoolExecutor(threads) as pool:
        running = deque((path, pool.submit(read, path)) for path in islice(left, 4 * threads))
        while running:
            path, task = running.popleft()
            running.extend((path, pool.submit(read, path)) for path in islice(left, 1))
            yield path, task.result()


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not any(map(is_hidden, path.parts))
