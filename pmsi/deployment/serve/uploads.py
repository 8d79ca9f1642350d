"""Photographs as uploads: limits, and a check of their content, before a pixel is decoded."""

from __future__ import annotations

import base64
import io
import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pmsi.data.pixels import open_image, read_pixels, resize_pixels
from pmsi.runtime.files import describe_error

MOST_BYTES = 32 * 2**20
MOST_PIXELS = 64_000_000  # a phone's 50 megapixels; as many as 200 MB of bytes
_PREFIX = "data:image/jpeg;base64,"


class Upload(NamedTuple):
    """One photograph, upright: uint8 ``[h, w, 3]``, and a remark about how it was read, or ""."""

    pixels: NDArray[np.uint8]
    remark: str


def read_upload(content: bytes) -> Upload:
    """Read a photograph from bytes of unknown origin; its content says what it is, no name is believed.

    Of an animation it is the first frame; transparency is dropped; more than 8 bits, grey and CMYK become 8-bit RGB.

    Raises:
        ValueError: it is empty, no image, damaged, cut short, or too large; in words for the one who sent it.
    """
    if not content:
        raise ValueError("the file is empty (0 bytes)")
    if len(content) > MOST_BYTES:
        raise ValueError(f"the file has {len(content) / 2**20:.0f} MB; the limit is {MOST_BYTES // 2**20} MB")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is lower
        try:
            with open_image(io.BytesIO(content)) as image:
                width, height = image.size
                frames = getattr(image, "n_frames", 1)
        except (UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise ValueError(_explain(error)) from error
        except Exception as error:  # Pillow's decoders raise anything from SyntaxError to struct.error
            raise _name_damage(error) from error
        if width * height > MOST_PIXELS:
            size = f"{width} x {height} px, {width * height / 1e6:.0f} megapixels"
            raise ValueError(f"the image has {size}; the limit is {MOST_PIXELS // 10**6}")
        try:
            pixels = read_pixels(io.BytesIO(content))
        except Exception as error:
            raise _name_damage(error) from error
    return Upload(pixels, f"the first of {frames} frames" if frames > 1 else "")


def _explain(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"the image is too large; the limit is {MOST_PIXELS // 10**6} megapixels"
    return "this is no image that can be read here (JPEG, PNG, WebP, AVIF, GIF, TIFF, BMP, JPEG 2000)"


def _name_damage(error: Exception) -> ValueError:
    return ValueError(f"the image is damaged or cut short ({describe_error(error, 120)})")


def crop_square(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Central square of ``[h, w, 3]``, resized: uint8 ``[3, side, side]``."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = np.ascontiguousarray(pixels[top : top + short, left : left + short])
    return np.ascontiguousarray(resize_pixels(square, side, side).transpose(2, 0, 1))


def encode_picture(pixels: NDArray[np.uint8]) -> bytes:
    """JPEG of ``[3, h, w]`` with full colour resolution, so that edges of tiles stay sharp."""
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image.save(file, format="JPEG", quality=92, subsampling=0)
    return file.getvalue()


def make_link(pixels: NDArray[np.uint8]) -> str:
    """Picture ``[3, h, w]`` as a data URI for a page."""
    return _PREFIX + base64.b64encode(encode_picture(pixels)).decode()


def read_link(link: object) -> Upload:
    """Read a picture that `make_link` wrote and a page sent back.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(link, str) or not link.startswith(_PREFIX):
        raise ValueError("the picture must be a data URI that this server wrote")
    try:
        return read_upload(base64.b64decode(link.removeprefix(_PREFIX), validate=True))
    except ValueError as error:
        raise ValueError(f"the picture of the page: {error}") from error
