"""Training in the style of published code: PIL and torchvision transforms in workers, loops over cells, fp32.

Written from descriptions of the code of the paper and of PMG, on the network of `pmsi` with torch's own layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from bench.throughput.sides.loops import recurse
from pmsi.models.base import Network
from pmsi.models.layers import InplaceReLU6
from pmsi.recipe import Recipe
from pmsi.runtime.cores import count_workers

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PHASES = ((0, 3, 1.0), (1, 2, 1.0), (2, 1, 1.0), (None, 0, 2.0))  # output, recursions of the mosaic, weight of the loss

Batches = Iterator[tuple[Iterable[Tensor], Tensor]]
"""Mini-batches: an iterator over the normalised images ``[B, 3, H, W]`` of each phase, and labels ``[B]``."""


class PlainInput:
    """Inputs from the files below ``folder / "train"``, decoded in every epoch by one worker process per core.

    Args:
        folder: holds a folder of images for each class in ``train``.
        recipe: gives the sizes of images and mini-batches.
        device: makes the mosaics.
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
            num_workers=count_workers(),
            drop_last=True,
            pin_memory=device.type == "cuda",
            persistent_workers=True,
        )

    def batches(self, epoch: int) -> Batches:  # noqa: ARG002 - torch's generator goes on
        """Mini-batches of one epoch."""
        for images, labels in self.loader:
            shown = images.to(self.device, non_blocking=True)
            yield self.phase_inputs(shown), labels.to(self.device, non_blocking=True)

    def phase_inputs(self, images: Tensor) -> Iterator[Tensor]:
        """Mosaics of a mini-batch, one per phase: one draw for all images, by loops over cells."""
        for _, recursions, _ in PHASES:
            yield recurse(images, recursions) if recursions else images


class PlainTrainer:
    """Algorithm 1 of the paper with two optimisers, in fp32 and NCHW; it reads the loss after every step.

    Args:
        network: on its device.
        recipe: gives the learning rates.
        steps: mini-batches of the whole run.
    """

    def __init__(self, network: Network, recipe: Recipe, steps: int) -> None:
        self.network = _restore_layers(network).to(memory_format=torch.contiguous_format).train()
        rates = zip(network.parameter_groups(), (recipe.lr_backbone, recipe.lr_new), strict=True)
        self.optimizers = [SGD(part, lr=rate, momentum=0.9, weight_decay=5e-4) for part, rate in rates]
        self.schedules = [CosineAnnealingLR(optimizer, steps) for optimizer in self.optimizers]

    def step(self, inputs: Iterable[Tensor], labels: Tensor) -> list[float]:
        """Train on one mini-batch; returns the weighted losses of its phases."""
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
        """Train for one epoch; returns its number of images."""
        count = 0
        for inputs, labels in batches:
            self.step(inputs, labels)
            count += len(labels)
        return count


def _restore_layers(network: Network) -> Network:
    """Put torch's own ReLU6 back in ``network``; `pmsi`'s 1x1 convolutions are torch's own in NCHW."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, InplaceReLU6):
                setattr(parent, name, nn.ReLU6(inplace=True))
    return network
