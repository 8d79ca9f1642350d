"""DALI pipelines of DALI's own operators; their regions come from our draws, so the law is the same.

DALI keeps images as height, width, channels; its batches are made before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.cases import Case
from bench.inputs import MEAN, STD, Batch, UnfitError, need, pick
from bench.ours import Run, draw_window, make_augmentation
from mosaicaug import Plan


def make_dali(case: Case, batch: Batch) -> Run:
    """`multi_paste` of tiles or boxes; arithmetic for MixUp."""
    fn, types = _need_dali(case)
    images, aug = _to_hwc(batch.images), make_augmentation(case)

    def paste() -> Any:
        regions = fn.external_source(lambda: find_regions(aug.sample(case.shape)), num_outputs=4)
        return _paste(fn, _feed(fn, images, lambda: images), regions, case)

    def blend() -> Any:
        pixels = _feed(fn, images, lambda: images)
        partner, weight = fn.external_source(lambda: _find_weights(aug.sample(case.shape)), num_outputs=2)
        weight = weight.gpu() if isinstance(images, Tensor) else weight
        mixed = pixels * (1 - weight) + fn.permute_batch(pixels, indices=partner) * weight
        return fn.cast(mixed, dtype={"uint8": types.UINT8, "float32": types.FLOAT}[case.dtype])

    return _build(case, batch, blend if case.augmentation == "mixup" else paste)


def make_dali_pipeline(case: Case, batch: Batch) -> Run:
    """Pick, crop and flip as uint8, `multi_paste`, then normalise, cast and bring the channels to the front."""
    fn, types = _need_dali(case)
    stored, aug = _to_hwc(batch.images), make_augmentation(case)
    room = stored.shape[1] - case.size

    def draw() -> tuple[Any, ...]:
        window = draw_window(case, batch.images)
        y, x = (window[:, :2] / room).T.contiguous().numpy()
        return y, x, window[:, 2].int().numpy(), *find_regions(aug.sample(case.shape))

    def chain() -> Any:
        images = _feed(fn, stored, lambda: [stored[i] for i in pick(case, batch.images).tolist()])
        y, x, flip, *regions = fn.external_source(draw, num_outputs=7)
        side = (case.size, case.size)
        window = {"crop": side, "crop_pos_y": y, "crop_pos_x": x, "mirror": flip}
        cropped = fn.crop_mirror_normalize(images, **window, dtype=types.UINT8, output_layout="HWC")
        pasted = _paste(fn, cropped, regions, case)
        return fn.crop_mirror_normalize(pasted, mean=MEAN, std=STD, dtype=types.FLOAT, output_layout="CHW")

    return _build(case, batch, chain)


def find_regions(plan: Plan) -> tuple[Any, Any, Any, Any]:
    """A plan that only copies, as `multi_paste` wants it: images ``[B, K]``; corners there, here, sizes ``[B, K, 2]``.

    Regions are pasted in order, so the overlay comes last. Sizes of 0 are not allowed: where an image has no overlay,
    its first tile is pasted twice.
    """
    batch, grid = len(plan), plan.grid
    tile = torch.tensor(plan.size) // grid
    home = torch.arange(grid**2).expand(batch, -1)
    here, there = (torch.stack([k // grid, k % grid], 2) * tile for k in (home, plan.tiles % grid**2))
    images, sizes = torch.arange(batch)[:, None].expand_as(home), tile.expand_as(here)
    laid = plan.has_overlay
    if laid.any():
        extent, where = plan.to_box[:, 2:] - plan.to_box[:, :2], laid[:, None]
        images = torch.cat([images, torch.where(laid, plan.overlay, images[:, 0])[:, None]], 1)
        there = torch.cat([there, torch.where(where, plan.from_box[:, :2], there[:, 0])[:, None]], 1)
        here = torch.cat([here, torch.where(where, plan.to_box[:, :2], here[:, 0])[:, None]], 1)
        sizes = torch.cat([sizes, torch.where(where, extent, tile)[:, None]], 1)
    images, there, here, sizes = (value.int().contiguous() for value in (images, there, here, sizes))
    return images.numpy(), there.numpy(), here.numpy(), sizes.numpy()


def read_images(output: Any) -> Tensor:
    """The images of a batch that DALI made, ``[B, 3, H, W]``."""
    images = torch.from_numpy(np.array(output.as_cpu().as_array()))
    return images.permute(0, 3, 1, 2) if output.layout() == "HWC" else images


def _find_weights(plan: Plan) -> tuple[Any, Any]:
    return plan.overlay.numpy(), plan.opacity.numpy()


def _need_dali(case: Case) -> tuple[Any, Any]:
    fn = need("nvidia.dali.fn", "DALI")
    if case.dtype == "bfloat16":
        raise UnfitError("DALI has no bfloat16 here")
    return fn, need("nvidia.dali.types", "DALI")


def _to_hwc(images: Tensor) -> Any:
    """``[B, H, W, 3]``: for DALI's CPU operators a numpy array."""
    hwc = images.permute(0, 2, 3, 1).contiguous()
    return hwc if hwc.is_cuda else hwc.numpy()


def _feed(fn: Any, images: Any, source: Callable[[], Any]) -> Any:
    device = "gpu" if isinstance(images, Tensor) else "cpu"
    return fn.external_source(source, batch=True, no_copy=True, layout="HWC", device=device)


def _paste(fn: Any, images: Any, regions: Any, case: Case) -> Any:
    ids, corners, places, sizes = regions
    size = (case.size, case.size)
    return fn.multi_paste(images, in_ids=ids, in_anchors=corners, out_anchors=places, shapes=sizes, output_size=size)


def _build(case: Case, batch: Batch, chain: Callable[[], Any]) -> Run:
    dali = need("nvidia.dali", "DALI")
    device = batch.images.device.index or 0 if batch.images.is_cuda else None
    pipe = dali.Pipeline(batch_size=case.batch, num_threads=torch.get_num_threads(), device_id=device, seed=0)
    with pipe:
        pipe.set_outputs(chain())
    pipe.build()
    return pipe.run  # type: ignore[no-any-return]
