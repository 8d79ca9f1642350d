"""A training run as published code has it: PIL and torchvision transforms in worker processes, loops over cells, fp32.

Written from the description of what that code does (the paper's own and PMG's), on the network of `pmsi`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from bench.throughput.sides.loops import recurse
from pmsi.models.base import Network
from pmsi.recipe import Recipe

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PHASES = ((0, 3, 1.0), (1, 2, 1.0), (2, 1, 1.0), (None, 0, 2.0))  # output, recursions of the mosaic, weight of the loss

Batches = Iterator[tuple[Iterable[Tensor], Tensor]]
"""For each mini-batch: normalised images ``[B, 3, H, W]`` of every phase, made when their turn comes, and labels."""


class PlainInput:
    """The images below ``folder / "train"``, read anew in every epoch by a worker process for each core.

    Args:
        folder: holds a folder of images for each class in ``train``.
        recipe: sizes and mini-batch; the rest is as published.
        device: where mini-batches go, and are rearranged.
    """

    def __init__(self, folder: Path, recipe: Recipe, device: torch.device) -> None:
        steps = [
            transforms.Resize((recipe.resize, recipe.resize)),
            transforms.RandomCrop(recipe.crop),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
        self.dataset, self.device = ImageFolder(folder / "train", transforms.Compose(steps)), device
        self.loader = DataLoader(
            self.dataset,
            recipe.batch_size,
            shuffle=True,
            num_workers=os.cpu_count() or 1,
            drop_last=True,
            pin_memory=device.type == "cuda",
            persistent_workers=True,
        )

    def read(self, epoch: int) -> Batches:  # noqa: ARG002 - torch's generator goes on
        """One epoch."""
        for images, labels in self.loader:
            shown = images.to(self.device, non_blocking=True)
            yield self.show(shown), labels.to(self.device, non_blocking=True)

    def show(self, images: Tensor) -> Iterator[Tensor]:
        """What each phase sees of a mini-batch: one draw for all images, by loops over cells."""
        for _, recursions, _ in PHASES:
            yield recurse(images, recursions) if recursions else images


class PlainTrainer:
    """Algorithm 1 with two optimisers, in fp32 and NCHW, a loss read after every step.

    Args:
        network: on its device.
        recipe: rates and the length of the run; the rest is as published.
        steps: mini-batches of the whole run.
    """

    def __init__(self, network: Network, recipe: Recipe, steps: int) -> None:
        self.network = network.to(memory_format=torch.contiguous_format).train()
        rates = zip(network.parameter_groups(), (recipe.lr_backbone, recipe.lr_new), strict=True)
        self.optimizers = [SGD(part, lr=rate, momentum=0.9, weight_decay=5e-4) for part, rate in rates]
        self.schedules = [CosineAnnealingLR(optimizer, steps) for optimizer in self.optimizers]

    def step(self, inputs: Iterable[Tensor], labels: Tensor) -> list[float]:
        """One mini-batch: the weighted losses of its phases."""
        losses = []
        for (output, _, weight), images in zip(PHASES, inputs, strict=True):
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=False)  # what the torch of then did
            logits = self.network(images)
            loss = F.cross_entropy(logits.concat if output is None else logits.stages[output], labels) * weight
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in self.optimizers:
                optimizer.step()
            losses.append(loss.item())
        for schedule in self.schedules:
            schedule.step()
        return losses

    def train(self, batches: Batches) -> int:
        """One epoch; returns its images."""
        count = 0
        for inputs, labels in batches:
            self.step(inputs, labels)
            count += len(labels)
        return count
