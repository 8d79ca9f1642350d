"""Synthetic photographs to train on: JPEG files as large as those of CUB-200-2011."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

_PHOTO = (375, 500)  # height and width of most images of CUB-200-2011
_DISTINCT = 128


def write_photos(folder: Path, count: int) -> None:
    """Write ``count`` training photographs of at most 200 classes, and one test photograph.

    They are noise whose amplitude falls with frequency like in photographs: JPEGs of 98 kB, like those of CUB-200-2011.
    """
    photos = [_make_photo(seed) for seed in range(min(count, _DISTINCT))]
    classes = min(count, 200)
    for number in range(classes):
        for split in ("train", "test"):
            (folder / split / f"{number:03}").mkdir(parents=True)
    for number in range(count):
        path = folder / "train" / f"{number % classes:03}" / f"{number:05}.jpg"
        path.write_bytes(photos[number % len(photos)])
    (folder / "test" / "000" / "0.jpg").write_bytes(photos[0])


def _make_photo(seed: int) -> bytes:
    height, width = _PHOTO
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    noise = np.random.default_rng(seed).standard_normal((3, height, width))
    pixels = np.fft.irfft2(np.fft.rfft2(noise) * frequency**-1.2, s=_PHOTO)
    levels = np.clip(128 + 50 * pixels / pixels.std(), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels.transpose(1, 2, 0)).save(file, "JPEG", quality=90)
    return file.getvalue()
