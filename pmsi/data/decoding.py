"""Image files decoded and resized to uint8 tensors, on all cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from pmsi.data.pixels import read_pixels
from pmsi.runtime.cores import count_workers
from pmsi.runtime.files import describe_error

Progress = Callable[[str, int, int], None]
"""Callback of long work, called with (what, done, total)."""
Decoded = Generator[Tensor | None]
"""Images in order, uint8 ``[3, R, R]``; None for one that could not be read."""
Collected = tuple[Tensor, list[int]]
"""Images that could be read, uint8 ``[N, 3, R, R]``, and the rows of those that could not."""


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


def read_image(path: Path) -> Tensor:
    """Read one file as `read_pixels` does, uint8 ``[3, h, w]``."""
    return torch.from_numpy(read_pixels(path)).permute(2, 0, 1)


@contextmanager
def _use_one_torch_thread() -> Iterator[None]:
    """Limit torch to one thread in the threads that start within: each core already has its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
