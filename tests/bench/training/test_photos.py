"""Photographs are as large as those of CUB-200-2011."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def test_photos_are_as_large_as_those_of_cub(photos: Path) -> None:
    files = sorted(photos.glob("train/*/*.jpg"))
    assert [Image.open(file).size for file in files] == [(500, 375)] * 8
    assert all(85e3 < file.stat().st_size < 110e3 for file in files)
    assert len({file.read_bytes() for file in files}) == 8
