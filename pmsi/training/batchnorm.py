"""Batch-norm statistics over a fixed number of images in training, for any number of processes."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from pmsi.recipe import Recipe

_Norm = nn.BatchNorm1d | nn.BatchNorm2d


def share_statistics(network: nn.Module, recipe: Recipe, processes: int, device: str) -> nn.Module:
    """The network with batch-norm over groups of ``recipe.batch_norm_images`` images; names in its state stay.

    A group is a part of a process's share (ghost batch-norm), all of it (local, what None means), or of several
    processes (synchronised). The published code had 16 images on each of two GPUs: groups of 16 are the same on one.
    Running statistics come from the first group, as in ``DataParallel`` and DDP.

    Args:
        recipe: also gives the images of the whole batch, of which ``processes`` have equal shares.
        device: type of the network's device.

    Raises:
        ValueError: groups that do not fill the shares, or synchronised ones on another device than "cuda".
    """
    images, batch = recipe.batch_norm_images, recipe.batch_size
    share = batch // processes
    if images is None or images == share:
        return network
    if images < share:
        if share % images:
            raise ValueError(f"batch-norm: groups of {images} images do not fill a process's {share} images")
        return _replace(network, share // images)
    if images % share or batch % images:
        raise ValueError(f"batch-norm: {images} images are no whole number of processes with {share} images each")
    if device != "cuda":
        raise ValueError(
            f"batch-norm: {images} images on {images // share} processes need synchronised statistics, which run on"
            f" GPUs only; set --batch-norm-images to {share} or less, or to None"
        )
    group, _ = dist.new_subgroups(images // share) if images < batch else (dist.group.WORLD, [])
    convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
    return cast(nn.Module, convert(network, group))


def _replace(module: nn.Module, groups: int) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, _replace(child, groups))
    return GhostBatchNorm(module, groups) if isinstance(module, _Norm) else module


class GhostBatchNorm(nn.BatchNorm2d):
    """Batch-norm in which ``groups`` equal parts of the batch have their own statistics.

    Takes over parameters and statistics of ``norm``, for maps ``[B, C, H, W]`` or vectors ``[B, C]``. Hoffer et al.
    2017, "Train longer, generalize better", Algorithm 1.
    """

    def __init__(self, norm: _Norm, groups: int) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias, self.groups = norm.weight, norm.bias, groups
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        if not self.training:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        first, *others = input.chunk(self.groups)
        normed = [super().forward(first)]
        normed += [F.batch_norm(one, None, None, self.weight, self.bias, training=True, eps=self.eps) for one in others]
        return torch.cat(normed)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        assert input.ndim in (2, 4)
