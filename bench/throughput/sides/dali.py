"""DALI pipelines with the nodes of `mosaicaug.dali`, which are DALI's own operators on our draws.

DALI keeps images as height, width, channels; its batches are made before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.measure import Run
from bench.throughput.batch import MEAN, STD, Batch, UnfitError, need, pick
from bench.throughput.cases import Case
from bench.throughput.sides.ours import draw_window


def make_dali(case: Case, batch: Batch) -> Run:
    """One node between a batch in memory and the output."""
    nodes, _, _ = _need_dali(case)
    images = _to_hwc(batch.images)
    return _build(case, batch, lambda: _augment(nodes, _feed(images, lambda: images), case))


def make_dali_pipeline(case: Case, batch: Batch) -> Run:
    """Pick, crop and flip as uint8, augment, then normalise, cast and bring the channels to the front."""
    nodes, fn, types = _need_dali(case)
    stored = _to_hwc(batch.images)
    room = stored.shape[1] - case.size

    def draw() -> tuple[Any, ...]:
        window = draw_window(case, batch.images)
        y, x = (window[:, :2] / room).T.contiguous().numpy()
        return y, x, window[:, 2].int().numpy()

    def chain() -> Any:
        images = _feed(stored, lambda: [stored[i] for i in pick(case, batch.images).tolist()])
        y, x, flip = fn.external_source(draw, num_outputs=3)
        side = (case.size, case.size)
        window = {"crop": side, "crop_pos_y": y, "crop_pos_x": x, "mirror": flip}
        cropped = fn.crop_mirror_normalize(images, **window, dtype=types.UINT8, output_layout="HWC")
        made = _augment(nodes, cropped, case)
        return fn.crop_mirror_normalize(made, mean=MEAN, std=STD, dtype=types.FLOAT, output_layout="CHW")

    return _build(case, batch, chain)


def read_images(output: Any) -> Tensor:
    """The images of a batch that DALI made, ``[B, 3, H, W]``."""
    images = torch.from_numpy(np.array(output.as_cpu().as_array()))
    return images.permute(0, 3, 1, 2) if output.layout() == "HWC" else images


def _need_dali(case: Case) -> tuple[Any, Any, Any]:
    fn, types = need("nvidia.dali.fn", "DALI"), need("nvidia.dali.types", "DALI")
    if case.dtype == "bfloat16":
        raise UnfitError("DALI has no bfloat16 here")
    return need("mosaicaug.dali", "DALI"), fn, types


def _augment(nodes: Any, images: Any, case: Case) -> Any:
    """The case's node, drawn from a seed of torch's generator."""
    options: dict[str, Any] = {"per": case.per, "seed": int(torch.randint(2**31, ()))}
    if case.augmentation in ("rmg", "jigsaw"):
        tiles = nodes.recursive_mosaic if case.augmentation == "rmg" else nodes.jigsaw
        return tiles(images, case.level, **options)
    labels = need("nvidia.dali.types", "DALI").Constant(np.zeros(1, np.int32))  # what nobody asks for is not computed
    return getattr(nodes, case.augmentation)(images, labels, **options)[0]


def _to_hwc(images: Tensor) -> Any:
    """``[B, H, W, 3]``: for DALI's CPU operators a numpy array."""
    hwc = images.permute(0, 2, 3, 1).contiguous()
    return hwc if hwc.is_cuda else hwc.numpy()


def _feed(images: Any, source: Callable[[], Any]) -> Any:
    fn, device = need("nvidia.dali.fn", "DALI"), "gpu" if isinstance(images, Tensor) else "cpu"
    return fn.external_source(source, batch=True, no_copy=True, layout="HWC", device=device)


def _build(case: Case, batch: Batch, chain: Callable[[], Any]) -> Run:
    dali = need("nvidia.dali", "DALI")
    device = batch.images.device.index or 0 if batch.images.is_cuda else None
    pipe = dali.Pipeline(batch_size=case.batch, num_threads=torch.get_num_threads(), device_id=device, seed=0)
    with pipe:
        pipe.set_outputs(chain())
    pipe.build()
    return pipe.run  # type: ignore[no-any-return]
