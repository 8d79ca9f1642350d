"""Stores of a split's images, on the device, in host memory or in files; none waits for the device.

Decoded images lie on the GPU if they fit there, else in host memory (over the cache's file: the system pages it in);
`ImageFiles` are decoded anew each time, by worker processes. A batch is the same bits from all three.
"""

from __future__ import annotations

import json
import os
import signal
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.utils import data

from pmsi.data.decoding import file_stamp, read_resized
from pmsi.runtime.cores import count_workers

_SAMPLE = (
    4096  # bytes of each end of a file by which contents are told apart: reading all would take as long as an epoch
)


class ImageFiles(data.Dataset[Tensor | ValueError]):
    """Dataset of images that stay in their files, for sets that neither memory nor a disk holds decoded.

    Args:
        paths: of the images.
        resize: R, px; both sides of every image become it.
        workers: processes that decode; None is one for each core of this process, and 0 decodes in the process itself.
    """

    def __init__(self, paths: Sequence[Path], resize: int, workers: int | None = None) -> None:
        self.paths, self.resize, self.workers = paths, resize, workers

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor | ValueError:
        """Decode one image, uint8 ``[3, R, R]``, or return the error: raised in a worker it would bring a traceback."""
        try:
            return read_resized(self.paths[row], self.resize)
        except ValueError as error:
            return error

    @cached_property
    def crc32(self) -> int:
        """CRC-32 of names, sizes and times of change."""
        return zlib.crc32(json.dumps([[path.name, *file_stamp(path)] for path in self.paths]).encode())

    @cached_property
    def content_crc32(self) -> int:
        """CRC-32 of names, sizes, and the first and last 4 kB of each file: what a copy elsewhere has too."""
        crc = 0
        for path in self.paths:
            crc = zlib.crc32(path.name.encode(errors="surrogateescape"), crc)
            if path.is_file():
                with path.open("rb") as file:
                    size = file.seek(0, os.SEEK_END)
                    crc = zlib.crc32(str(size).encode(), crc)
                    for place in (0, max(0, size - _SAMPLE)):
                        file.seek(place)
                        crc = zlib.crc32(file.read(_SAMPLE), crc)
        return crc


@dataclass(frozen=True)
class Split:
    """Images and labels of a split.

    Args:
        images: uint8 ``[N, 3, R, R]`` in RGB, contiguous; ``[0, 3, R, R]`` if they stay in ``files``.
        labels: int64 ``[N]``.
    """

    images: Tensor
    labels: Tensor
    files: ImageFiles | None = None

    @cached_property
    def crc32(self) -> int:
        """CRC-32 of all pixels (0.3 s per GB), or of the files' names, sizes and times."""
        return zlib.crc32(self.images.numpy().data) if self.files is None else self.files.crc32

    def take(self, index: Tensor) -> Tensor:
        """Select images by row, uint8 ``[n, 3, R, R]``; ValueError names a file that cannot be read."""
        if self.files is None:
            return self.images[index]
        return _expect_images(_collate([self.files[row] for row in index.tolist()]))


class ImageStore(ABC):
    """Storage of a split's images.

    Args:
        labels: int64 ``[N]``, on the host.
        device: that computes with them.
    """

    where: str

    def __init__(self, labels: Tensor, device: torch.device) -> None:
        self.labels, self.device = labels, device

    @abstractmethod
    def fetch(self, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images on the device, and the rows among them of each batch, both int64 ``[n]``."""


class DeviceStore(ImageStore):
    """Store of all images on the device."""

    def __init__(self, images: Tensor, labels: Tensor, device: torch.device) -> None:
        super().__init__(labels, device)
        self.images, self.where = images.to(device), str(device)

    def fetch(self, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches:
            yield self.images, batch


class HostStore(ImageStore):
    """Store of all images in host memory; a batch is copied to pinned memory, then to the GPU without waiting."""

    where = "host memory"

    def __init__(self, images: Tensor, labels: Tensor, device: torch.device) -> None:
        super().__init__(labels, device)
        self.images = images

    def fetch(self, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches:
            shape = (len(batch), *self.images.shape[1:])
            # Pinned memory is torch's own pool: a buffer comes back to it when its copy to the GPU is done.
            buffer = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
            torch.index_select(self.images, 0, batch, out=buffer)
            yield buffer.to(self.device, non_blocking=True), torch.arange(len(batch))


class FileStore(ImageStore):
    """Store of files, decoded by worker processes, some batches ahead."""

    where = "files"

    def __init__(self, files: ImageFiles, labels: Tensor, device: torch.device) -> None:
        super().__init__(labels, device)
        self.files = files

    def fetch(self, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        loader = data.DataLoader(
            self.files,
            batch_sampler=[batch.tolist() for batch in batches],
            num_workers=count_workers(self.files.workers),
            collate_fn=_collate,
            worker_init_fn=_ignore_signals,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # a private one: the global generator must not advance
        )
        for images in map(_expect_images, loader):
            yield images.to(self.device, non_blocking=True), torch.arange(len(images))


def make_store(split: Split, device: torch.device) -> ImageStore:
    """Make the store that suits ``device``: a GPU holds images that take at most half of its free memory."""
    if split.files is not None:
        return FileStore(split.files, split.labels, device)
    if device.type == "cuda" and split.images.numel() > torch.cuda.mem_get_info(device)[0] / 2:
        return HostStore(split.images, split.labels, device)
    return DeviceStore(split.images, split.labels, device)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy a few values to the device without waiting for it."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def _collate(images: list[Tensor | ValueError]) -> Tensor | ValueError:
    failed = (image for image in images if isinstance(image, ValueError))
    return next(failed, None) or torch.stack(cast(list[Tensor], images))


def _expect_images(images: Tensor | ValueError) -> Tensor:
    if isinstance(images, ValueError):
        raise images
    return images


def _ignore_signals(_: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
