"""Nodes of `mosaicaug.dali` run on given batches, for the tests of that door; importing this needs DALI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, pipeline
from torch import Tensor

from mosaicaug.dali import cutmix, jigsaw, mixup, recursive_mosaic, snapmix
from mosaicaug.sampling import batch_generator

Pipeline: Any = pipeline.Pipeline  # has no types


BATCH, CLASSES = 8, 5


NODES: dict[str, Any] = {
    "recursive_mosaic": recursive_mosaic,
    "jigsaw": jigsaw,
    "cutmix": cutmix,
    "mixup": mixup,
    "snapmix": snapmix,
}


MIXING = ("cutmix", "mixup", "snapmix")


def make_images(size: tuple[int, int], dtype: torch.dtype = torch.uint8, batch: int = BATCH) -> Tensor:
    """Noise ``[B, H, W, 3]``, 0 to 255 or 0 to 1."""
    noise = torch.randint(0, 256, (batch, *size, 3), dtype=torch.uint8, generator=batch_generator(99))
    return noise if dtype == torch.uint8 else noise.to(dtype) / 255


def make_labels(batch: int = BATCH) -> Tensor:
    """int32 ``[B, 1]``, as DALI's readers make them; some occur twice."""
    return (torch.arange(batch, dtype=torch.int32) * 2 % CLASSES)[:, None]


def run(
    define: Callable[[Any, Any], Any],
    images: Any,
    labels: Tensor | None = None,
    *,
    batches: int = 1,
    layout: str | None = "HWC",
    **settings: Any,
) -> list[list[Tensor]]:
    """Run a pipeline of ``define(images, labels)`` on the same batch again and again."""
    pixels = images.numpy() if isinstance(images, Tensor) else images
    named = make_labels(len(pixels)) if labels is None else labels
    pipe = Pipeline(batch_size=len(pixels), num_threads=1, device_id=None, **settings)
    with pipe:
        node = fn.external_source(lambda: pixels, batch=True, layout=layout)
        made = define(node, fn.external_source(lambda: named.numpy(), batch=True))  # noqa: PLW0108 - DALI does not take the method
        pipe.set_outputs(*flatten(made))
    return [[torch.from_numpy(np.array(one.as_array())) for one in pipe.run()] for _ in range(batches)]


def flatten(made: Any) -> list[Any]:
    return [one for part in made for one in flatten(part)] if isinstance(made, tuple | list) else [made]


def to_chw(images: Tensor) -> Tensor:
    return images.movedim(-1, -3)


def expect_equal(got: Sequence[Tensor], want: Sequence[Tensor]) -> None:
    for one, other in zip(got, want, strict=True):
        assert one.shape == other.shape
        assert torch.equal(one, other)
