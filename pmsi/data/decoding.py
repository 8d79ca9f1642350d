"""Image files decoded and resized to uint8 tensors, on all cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, features
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from pmsi.runtime.cores import count_workers
from pmsi.runtime.files import check_file, describe_error

Progress = Callable[[str, int, int], None]
"""Callback of long work, called with (what, done, total)."""
Decoded = Generator[Tensor | None]
"""Images in order, uint8 ``[3, R, R]``; None for one that could not be read."""
Collected = tuple[Tensor, list[int]]
"""Images that could be read, uint8 ``[N, 3, R, R]``, and the rows of those that could not."""

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


def decode_images(
    paths: Sequence[Path],
    resize: int,
    report: Callable[[int, int], None],
    *,
    stop: bool,
    workers: int | None = None,
) -> Decoded:
    """Decode files on all cores that this process may use, in order.

    Args:
        resize: R, px; both sides of every image become it.
        report: called with (done, total) after each image.
        stop: raise for a file that cannot be read, rather than yield None in its place.
        workers: threads that decode; None is a thread for each core.

    Yields:
        uint8 ``[3, R, R]``, or None.

    Raises:
        ValueError: a file cannot be read, with ``stop``.
    """

    def read(path: Path) -> Tensor | None:
        try:
            return read_resized(path, resize)
        except ValueError:
            if stop:
                raise
            return None

    threads, left = max(1, count_workers(workers, alone=True)), iter(paths)
    with _use_one_torch_thread(), ThreadPoolExecutor(threads) as pool:
        # At most this many decoded images wait in memory, and one slow image stops no other.
        running = deque(pool.submit(read, path) for path in islice(left, 8 * threads))
        for done in range(1, len(paths) + 1):
            yield running.popleft().result()
            running.extend(pool.submit(read, path) for path in islice(left, 1))
            report(done, len(paths))


def read_resized(path: Path, resize: int) -> Tensor:
    """Read one file as RGB, uint8 ``[3, R, R]``; ValueError if it cannot be read."""
    try:
        resized: Tensor = transforms.resize(read_image(path), [resize, resize], antialias=True)
    except Exception as error:  # Pillow's decoders raise anything from SyntaxError to struct.error
        raise ValueError(
            f"data: cannot read {path} ({describe_error(error)}); replace it, or leave it out with --skip-unreadable"
        ) from error
    return resized


def collect_images(images: Decoded, count: int, resize: int) -> Collected:
    """Collect at most ``count`` images of ``resize`` px in one tensor."""
    collected = torch.empty(count, 3, resize, resize, dtype=torch.uint8)
    skipped: list[int] = []
    with closing(images):
        for row, image in enumerate(images):
            if image is None:
                skipped.append(row)
            else:
                collected[row - len(skipped)] = image
    return collected[: count - len(skipped)], skipped


def file_stamp(path: Path) -> Sequence[int]:
    """Size in bytes and time of change in ns; empty for a link that leads nowhere."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns


def open_image(path: Path) -> Image.Image:
    """Open an image file by one of the decoders of `SUFFIXES`; ValueError for a folder, a pipe or a device."""
    check_file(path)
    return Image.open(path, formats=_FORMATS)


def read_image(path: Path) -> Tensor:
    """Read one file as RGB, uint8 ``[3, h, w]``, upright by its EXIF orientation.

    More than 8 bits are scaled to 8 (see `_scale_to_bytes`). Of an animation it is the first frame, transparency is
    dropped.

    Raises:
        ValueError: numbers whose range cannot be told; and whatever Pillow raises for a damaged file.
    """
    with open_image(path) as image:
        image.load()
        deep = is_deep(image)
        rgb = (Image.fromarray(_scale_to_bytes(image)) if deep else image).convert("RGB")
        turn = _TURNS.get(_read_orientation(image))
    return torch.from_numpy(np.array(rgb if turn is None else rgb.transpose(turn))).permute(2, 0, 1)


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


@contextmanager
def _use_one_torch_thread() -> Iterator[None]:
    """Limit torch to one thread in the threads that start within: each core already has its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
