"""Pixels of image files: read upright as 8-bit RGB, and resized, with Pillow and numpy alone.

Exported networks are asked without torch, so nothing here imports it. `resize_pixels` gives the bits that torch gives
in training on processors with AVX2.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, features

from pmsi.runtime.files import check_file

SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp", ".mpo", ".png", ".apng", ".webp", ".gif"),
    *(".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".jpx", ".tga"),
    *((".avif", ".avifs") if features.check("avif") else ()),
}
"""Ends of the names of files that are taken for images, in lower case."""
_FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "TGA"),
    *(("AVIF",) if features.check("avif") else ()),
)
"""Decoders that a file may choose by its content, whatever its name: those of `SUFFIXES`, and not the rest of Pillow's,
of which EPS hands the file to Ghostscript, an interpreter of programs."""
RULES = 2
"""Version of the rules by which `read_image` makes pixels of a file; raised when they change, so that no cache of other
pixels is used. 2: EXIF orientation, and 16-bit PGM, 32-bit integers and floats are scaled."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Turn that makes an image upright, by its EXIF orientation."""
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a tag of TIFF, and a value of it
_FIRST_SIDEWAYS = 5  # from here on, orientations swap height and width
_SLACK = 1e-3  # of the white, by which floats may leave their range: arithmetic rounds


def open_image(source: Path | BinaryIO) -> Image.Image:
    """Open an image file by one of the decoders of `SUFFIXES`; ValueError for a folder, a pipe or a device."""
    if isinstance(source, Path):
        check_file(source)
    return Image.open(source, formats=_FORMATS)


def read_pixels(source: Path | BinaryIO) -> NDArray[np.uint8]:
    """Read one file, or its content, as RGB, uint8 ``[h, w, 3]``, upright by its EXIF orientation.

    More than 8 bits are scaled to 8 (see `_scale_to_bytes`). Of an animation it is the first frame, transparency is
    dropped.

    Raises:
        ValueError: numbers whose range cannot be told; and whatever Pillow raises for a damaged file.
    """
    with open_image(source) as image:
        image.load()
        deep = is_deep(image)
        rgb = (Image.fromarray(_scale_to_bytes(image)) if deep else image).convert("RGB")
        turn = _TURNS.get(_read_orientation(image))
    return np.array(rgb if turn is None else rgb.transpose(turn))


def resize_pixels(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize ``[h, w, 3]`` to ``[height, width, 3]``: bilinear, with as wide a filter as the image is shrunk.

    The arithmetic is torch's for uint8 (and Pillow-SIMD's): weights of 16 bits, first the rows, then the columns, each
    rounded to 8 bits.

    >>> resize_pixels(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), 1, 1).tolist()
    [[[5, 6, 7]]]
    """
    return _resize_axis(_resize_axis(pixels, width, 1), height, 0)


def _resize_axis(pixels: NDArray[np.uint8], size: int, axis: int) -> NDArray[np.uint8]:
    if pixels.shape[axis] == size:
        return pixels
    places, weights, precision = _list_taps(pixels.shape[axis], size)
    shape = [size if one == axis else length for one, length in enumerate(pixels.shape)]
    total = np.full(shape, 1 << (precision - 1), np.int32)  # a half, so that the shift below rounds to nearest
    spread = [-1 if one == axis else 1 for one in range(pixels.ndim)]
    for place, weight in zip(places.T, weights.T, strict=True):
        total += pixels.take(place, axis) * weight.reshape(spread)
    return (total >> precision).clip(0, 255).astype(np.uint8)


def _list_taps(length: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
    """Source pixels of each output pixel and their weights, both ``[size, taps]``, and the weights' fractional bits."""
    scale = length / size
    reach = max(scale, 1.0)
    centers = scale * (np.arange(size) + 0.5)
    first = np.maximum((centers - reach + 0.5).astype(np.int64), 0)
    places = first[:, None] + np.arange(2 * math.ceil(reach) + 1)
    heights = np.maximum(1 - np.abs((places - centers[:, None] + 0.5) * (1 / reach)), 0)
    heights[places >= length] = 0
    total = np.zeros(size)
    for column in heights.T:  # one after another, as torch adds them
        total += column
    shares = heights / total[:, None]
    # As many bits as leave the greatest weight below 2^15.
    precision = next((bits for bits in range(22) if int(0.5 + shares.max() * (2 << bits)) >= 1 << 15), 22)
    return np.minimum(places, length - 1), (shares * (1 << precision) + 0.5).astype(np.int32), precision


def read_size(path: Path) -> tuple[int, int]:
    """Read height and width of the upright image from the header of its file."""
    with open_image(path) as image:
        if image.format == "TIFF":
            image.load()  # which turns it; its header says one size in some versions of Pillow, and another in others
        sideways = _read_orientation(image) >= _FIRST_SIDEWAYS
        return (image.width, image.height) if sideways else (image.height, image.width)


def is_deep(image: Image.Image) -> bool:
    """Test for an image of more than 8 bits that `read_image` scales (Pillow itself does so for three channels)."""
    return image.mode.startswith(("I", "F"))


def _read_orientation(image: Image.Image) -> int:
    """Read the orientation of EXIF, PNG, WebP, TIFF or XMP; 1, which is upright, where none can be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged block raises anything from SyntaxError to struct.error; viewers show the image as is
        return 1


def _scale_to_bytes(image: Image.Image) -> NDArray[np.uint8]:
    """Scale one channel of more than 8 bits to 8.

    Where the format says 16 bits (PNG, PGM, JPEG 2000, 16-bit TIFF), white is 65,535. 32-bit integers and floats have
    no white of their own: it is the least of 1 (floats), 255 and 65,535 that holds all values. An image that is darker
    than a sixteenth of that white could be meant otherwise, and is refused.
    """
    values = np.asarray(image)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # TIFF; of 8 bits Pillow inverts it
        return 255 - _scale_values(values, image)
    return _scale_values(values, image)


def _scale_values(values: NDArray[Any], image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return (values >> 8).astype(np.uint8)
    low, high = values.min().item(), values.max().item()
    whites = (1, 255, 65_535) if image.mode == "F" else (255, 65_535)
    white = next((white for white in whites if -_SLACK * white <= low and high <= white + _SLACK * white), None)
    if white is None or (white != whites[0] and high < white / 16):  # NaN fits no range
        raise ValueError(
            f"its numbers lie in {low:g}..{high:g}, so that white is not known; save it with 8 or 16 bits, or as"
            f" floats of 0 to 1"
        )
    if white == 65_535 and image.mode == "I":
        return (values >> 8).astype(np.uint8)
    return (values * (255 / white)).round().clip(0, 255).astype(np.uint8)
