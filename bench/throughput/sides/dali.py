"""DALI pipelines with the nodes of `mosaicaug.dali`: DALI's own operators, fed with our draws.

DALI keeps images as height, width, channels; its batches are made before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.measure import Run
from bench.throughput.batch import MEAN, STD, Batch, UnfitError, draw_index, import_library
from bench.throughput.cases import Case
from bench.throughput.sides.ours import draw_window


def make_dali(case: Case, batch: Batch) -> Run:
    """Pipeline of one node on a batch in memory."""
    nodes, _, _ = _import_dali(case)
    images = _to_hwc(batch.images)
    return _build(case, batch, lambda: _augment(nodes, _feed(images, lambda: images), case))


def make_dali_pipeline(case: Case, batch: Batch) -> Run:
    """Pipeline that picks, crops and flips as uint8, augments, normalises, casts and transposes to NCHW."""
    nodes, fn, types = _import_dali(case)
    stored = _to_hwc(batch.images)
    room = stored.shape[1] - case.size

    def draw() -> tuple[Any, ...]:
        window = draw_window(case, batch.images)
        y, x = (window[:, :2] / room).T.contiguous().numpy()
        return y, x, window[:, 2].int().numpy()

    def chain() -> Any:
        images = _feed(stored, lambda: [stored[i] for i in draw_index(case, batch.images).tolist()])
        y, x, flip = fn.external_source(draw, num_outputs=3)
        side = (case.size, case.size)
        window = {"crop": side, "crop_pos_y": y, "crop_pos_x": x, "mirror": flip}
        cropped = fn.crop_mirror_normalize(images, **window, dtype=types.UINT8, output_layout="HWC")
        made = _augment(nodes, cropped, case)
        return fn.crop_mirror_normalize(made, mean=MEAN, std=STD, dtype=types.FLOAT, output_layout="CHW")

    return _build(case, batch, chain)


def read_images(output: Any) -> Tensor:
    """Images of a batch made by DALI, ``[B, 3, H, W]``."""
    images = torch.from_numpy(np.array(output.as_cpu().as_array()))
    return images.permute(0, 3, 1, 2) if output.layout() == "HWC" else images


def _import_dali(case: Case) -> tuple[Any, Any, Any]:
    fn, types = import_library("nvidia.dali.fn", "DALI"), import_library("nvidia.dali.types", "DALI")
    if case.dtype == "bfloat16":
        raise UnfitError("DALI has no bfloat16 here")
    return import_library("mosaicaug.dali", "DALI"), fn, types


def _augment(nodes: Any, images: Any, case: Case) -> Any:
    """Node of the case, seeded from torch's generator."""
    seed = int(torch.randint(2**31, ()))
    if case.augmentation in ("rmg", "jigsaw"):
        tiles = nodes.recursive_mosaic if case.augmentation == "rmg" else nodes.jigsaw
        return tiles(images, case.level, per=case.per, seed=seed)
    # Labels are required, but DALI computes only the outputs that a pipeline returns, and these it does not return.
    labels = import_library("nvidia.dali.types", "DALI").Constant(np.zeros(1, np.int32))
    return getattr(nodes, case.augmentation)(images, labels, per=case.per, seed=seed)[0]


def _to_hwc(images: Tensor) -> Any:
    """Images in DALI's layout ``[B, H, W, 3]``; a numpy array for its CPU operators."""
    hwc = images.permute(0, 2, 3, 1).contiguous()
    return hwc if hwc.is_cuda else hwc.numpy()


def _feed(images: Any, source: Callable[[], Any]) -> Any:
    fn, device = import_library("nvidia.dali.fn", "DALI"), "gpu" if isinstance(images, Tensor) else "cpu"
    return fn.external_source(source, batch=True, no_copy=True, layout="HWC", device=device)


def _build(case: Case, batch: Batch, chain: Callable[[], Any]) -> Run:
    dali = import_library("nvidia.dali", "DALI")
    device = batch.images.device.index or 0 if batch.images.is_cuda else None
    pipe = dali.Pipeline(batch_size=case.batch, num_threads=torch.get_num_threads(), device_id=device, seed=0)
    with pipe:
        pipe.set_outputs(chain())
    pipe.build()
    return pipe.run  # type: ignore[no-any-return]
