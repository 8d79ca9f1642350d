"""Loops over cells or images like in published training code, written from descriptions of that code."""

from __future__ import annotations

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.measure import Run
from bench.throughput.batch import Batch, UnfitError
from bench.throughput.cases import Case


def make_loop(case: Case, batch: Batch) -> Run:
    """Jigsaw of PMG, mosaic of RMG-PMSI, and SnapMix, each drawn once per batch."""
    if case.per == "sample":
        raise UnfitError("the published loop draws once per batch")
    images, level = batch.images, case.level
    if case.augmentation == "snapmix":
        return lambda: paste_resampled(images)
    assert level is not None
    if case.augmentation == "jigsaw":
        return lambda: swap_cells(images.clone(), level)
    return lambda: recurse(images, level)


def swap_cells(images: Tensor, n: int) -> Tensor:
    """Swap every one of ``n`` x ``n`` cells with the first, in random order, in place: one cycle through all."""
    side = images.shape[-1] // n
    corners = [(row * side, column * side) for row in range(n) for column in range(n)]
    random.shuffle(corners)
    for y, x in corners:
        kept = images[..., :side, :side].clone()
        images[..., :side, :side] = images[..., y : y + side, x : x + side]
        images[..., y : y + side, x : x + side] = kept
    return images


def recurse(images: Tensor, r: int) -> Tensor:
    """Swap the quadrants of a window, enter one of them, ``r`` times."""
    out = images.clone()
    window = out
    for _ in range(r):
        swap_cells(window, 2)
        side = window.shape[-1] // 2
        y, x = random.choice([(0, 0), (0, side), (side, 0), (side, side)])
        window = window[..., y : y + side, x : x + side]
    return out


def paste_resampled(images: Tensor, beta: float = 5.0) -> Tensor:
    """Paste into each image its partner's box, resampled; one pair of boxes for the batch."""
    out = images.clone()
    partners = torch.randperm(len(images)).tolist()
    to_box, from_box = (_draw_box(images.shape[-1], random.betavariate(beta, beta)) for _ in range(2))
    y0, x0, y1, x1 = to_box
    top, left, bottom, right = from_box
    if min(y1 - y0, x1 - x0, bottom - top, right - left) <= 0:
        return out
    for image, partner in enumerate(partners):
        cut = images[None, partner, :, top:bottom, left:right].float()
        patch = F.interpolate(cut, size=(y1 - y0, x1 - x0), mode="bilinear", align_corners=True)[0]
        out[image, :, y0:y1, x0:x1] = patch if images.is_floating_point() else patch.round()
    return out


def _draw_box(side: int, weight: float) -> tuple[int, int, int, int]:
    """Box of CutMix: area ``1 - weight`` of the image, uniform centre, clipped; y0, x0, y1, x1."""
    half = int(side * math.sqrt(1 - weight)) // 2
    y, x = random.randrange(side), random.randrange(side)
    return max(y - half, 0), max(x - half, 0), min(y + half, side), min(x + half, side)
