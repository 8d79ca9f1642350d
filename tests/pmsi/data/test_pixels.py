"""Pixels without torch: torch's own resize to the bit, and upright whatever a telephone wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torchvision.transforms.v2 import functional as transforms

from pmsi.data.decoding import read_resized
from pmsi.data.pixels import _FORMATS, SUFFIXES, read_pixels, resize_pixels

# Without AVX2 torchvision resizes in float32 and rounds once.
EXACT = "AVX" in torch.backends.cpu.get_cpu_capability()


@pytest.mark.parametrize("shape", [(100, 80, 36), (33, 50, 110), (36, 9, 36), (375, 500, 96), (7, 5, 1), (1, 1, 9)])
def test_resized_pixels_are_those_of_training(shape: tuple[int, int, int]) -> None:
    height, width, side = shape
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = resize_pixels(pixels, side, side).astype(int)
    wanted = transforms.resize(torch.from_numpy(pixels).permute(2, 0, 1), [side, side], antialias=True)
    assert np.abs(found - wanted.permute(1, 2, 0).numpy()).max() <= (0 if EXACT else 1)


def test_a_photograph_on_its_side_is_read_upright(tmp_path: Path) -> None:
    left = np.zeros((40, 60, 3), np.uint8)
    left[:, :30] = 255  # bright on the left as it is stored; a turn to the right brings that to the top
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(left).save(tmp_path / "phone.jpg", exif=exif)
    pixels = read_pixels(tmp_path / "phone.jpg")
    assert pixels.shape == (60, 40, 3)
    assert pixels[:25].min() > 200
    assert pixels[35:].max() < 50
    small = resize_pixels(pixels, 16, 16).astype(int)
    trained = read_resized(tmp_path / "phone.jpg", 16).permute(1, 2, 0).numpy()
    assert np.abs(small - trained).max() <= (0 if EXACT else 1)


def test_names_end_as_those_that_the_decoders_read() -> None:
    Image.init()
    known = {suffix for suffix, decoder in Image.registered_extensions().items() if decoder in (*_FORMATS, "MPO")}
    rare = {".j2c", ".jpc", ".jpf", ".icb", ".vda", ".vst"}
    assert known - rare | {".jfi", ".jif", ".pjp", ".pjpeg"} == SUFFIXES


def test_torch_is_not_imported() -> None:
    code = "import sys; sys.modules['torch'] = None; import pmsi.data.pixels"
    subprocess.run([sys.executable, "-c", code], check=True)
