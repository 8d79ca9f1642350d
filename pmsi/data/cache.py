"""Cache of decoded images: one file, mapped into memory, so that a second run decodes none.

Such a file is whole or not there, is checked before it is used, may be deleted at any time (but not cut or overwritten
while a run has it open), and holds nothing that is executed:

    pixels    uint8 [N, 3, R, R]
    JSON      key (what the pixels were made from), shape, skipped (rows that could not be read), crc32 of the pixels
    16 bytes  crc32 and length of the JSON as little-endian uint32, then `_MAGIC`, which names the version
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import PIL
import torch
import torchvision
from PIL import features

from pmsi.data.decoding import Collected, Decoded, file_stamp
from pmsi.data.pixels import RULES
from pmsi.runtime.files import check_file, replace_file

_TAIL = struct.Struct("<II8s")
_MAGIC = b"pmsi-c1\n"


def make_key(root: Path, entries: Iterable[tuple[Path, int]], **settings: object) -> dict[str, Any]:
    """Make the key of a cache: everything that decides the pixels of ``entries``, found without opening an image.

    Of each entry, (file below ``root``, label), the key holds path, label, size and time of change. A file that is
    replaced by another of the same size and time goes unnoticed.
    """
    files = hashlib.sha256()
    for path, label in entries:
        files.update(json.dumps([path.relative_to(root).as_posix(), label, *file_stamp(path)]).encode())
    return {
        "root": str(root.resolve()),
        "files": files.hexdigest(),
        **settings,
        "decoding": RULES,
        "pillow": f"{PIL.__version__}, jpeg {features.version('libjpeg_turbo') or features.version('jpg')}",
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def load_or_decode(
    folder: Path, name: str, key: dict[str, Any], images: Callable[[], Decoded], count: int, say: Callable[[str], None]
) -> Collected:
    """Load the images that ``folder`` keeps under ``name`` and ``key``, or else keep ``images()`` there.

    The tensor lies over the file: the system pages it in and out, processes share it, and what is written to it stays
    in this process. One file for each name and root; one that does not fit, or is damaged, is replaced.

    Args:
        key: from `make_key`.
        count: of ``images``, with those that cannot be read.
        say: called with one line: what was kept, or why a file could not be used.

    Raises:
        OSError: the file cannot be written; what stood there before is untouched.
    """
    path = folder / f"{name}-{hashlib.sha256(os.fsencode(key['root'])).hexdigest()[:8]}.pmsi"
    try:
        return _open(path, key, count)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        say(f"cache: {path} cannot be used ({error}); the images are read again")
    _write(path, key, images)
    try:
        kept, skipped = _open(path, key, count)
    except OSError as error:  # a file system that maps no files
        raise OSError(f"cache: {path}: {error}; name another folder with --cache, or none with --cache None") from error
    say(f"cache: {len(kept)} decoded images are kept in {path} ({kept.numel() / 1e6:.1f} MB)")
    return kept, skipped


def _open(path: Path, key: dict[str, Any], count: int) -> Collected:
    """Open and check a file; ValueError says why it is not what ``key`` asks for."""
    check_file(path)
    mapped = _map(path)
    crc32, length, magic = _TAIL.unpack(mapped[-_TAIL.size :]) if len(mapped) >= _TAIL.size else (0, 0, b"")
    if magic != _MAGIC:
        raise ValueError("it is damaged, or no cache of this version")
    size = len(mapped) - _TAIL.size - length
    text = mapped[max(size, 0) : -_TAIL.size]
    if zlib.crc32(text) != crc32:
        raise ValueError("it is damaged: its description does not match its checksum")
    try:
        about = json.loads(text)
        made_from, shape, skipped, wanted = (about[name] for name in ("key", "shape", "skipped", "crc32"))
        differs = [name for name in key | made_from if key.get(name) != made_from.get(name)]
        rows = count - len({row for row in skipped if 0 <= row < count})
    except (RecursionError, LookupError, TypeError, AttributeError) as error:
        raise ValueError("it is damaged: its description is none of ours") from error
    if differs:
        raise ValueError(f"it was made from other {', '.join(differs)}")
    if shape != [rows, 3, *([key["resize"]] * 2 if rows else [0, 0])]:
        raise ValueError(f"it is damaged: it has images of shape {shape}, not {rows}")
    if size != math.prod(shape):
        raise ValueError(f"it is damaged: it has {size} bytes of pixels, not {math.prod(shape)}")
    images = torch.frombuffer(mapped, dtype=torch.uint8)[:size].view(shape)
    if zlib.crc32(images.numpy().data) != wanted:
        raise ValueError("it is damaged: its pixels do not match their checksum")
    return images, skipped


def _map(path: Path) -> mmap.mmap:
    """Map a file into memory; pages that are written become this process's own copies."""
    with path.open("rb") as file:
        if sys.platform != "linux":
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        # Linux refuses a writable map larger than memory, unless told to set nothing aside for copies.
        no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python 3.13 has the name
        return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE | no_reserve)


def _write(path: Path, key: dict[str, Any], images: Callable[[], Decoded]) -> None:
    try:
        replace_file(path, partial(_fill, key, images))
    except OSError as error:
        raise OSError(
            f"cache: could not write {path}: {error.__cause__ or error}; what stood there before is untouched."
            " Name another folder with --cache, or none with --cache None"
        ) from error


def _fill(key: dict[str, Any], images: Callable[[], Decoded], path: Path) -> None:
    crc32, rows = 0, 0
    skipped: list[int] = []
    shape: tuple[int, ...] = (3, 0, 0)
    with path.open("wb") as file, closing(images()) as decoded:
        for row, image in enumerate(decoded):
            if image is None:
                skipped.append(row)
                continue
            pixels = image.contiguous().numpy()
            file.write(pixels.data)
            crc32, rows, shape = zlib.crc32(pixels.data, crc32), rows + 1, image.shape
        about = {"key": key, "shape": [rows, *shape], "skipped": skipped, "crc32": crc32}
        text = json.dumps(about).encode()
        file.write(text + _TAIL.pack(zlib.crc32(text), len(text), _MAGIC))
