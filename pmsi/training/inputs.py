"""What a process's network sees in each phase of a mini-batch: from stored images to normalised inputs and targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from mosaicaug import Plan, Targets
from pmsi.data.preprocess import preprocess
from pmsi.data.storage import to_device
from pmsi.recipe import Recipe
from pmsi.runtime.devices import input_dtype
from pmsi.training.batches import BatchPlan, LocalBatch

PhaseInput = tuple[Tensor, Tensor | Targets]  # normalised images [B, 3, H, W], and their targets


class Inputs:
    """Makes them, each when its turn comes.

    All phases share one buffer, one after the other: on a CPU, fresh memory costs more than writing to it.

    Args:
        recipe: whose phases.
        labels: of all training images, int64 ``[N]``, on the host.
        fabric: device and precision.
        look: SnapMix's maps ``[B, h, w]`` of the whole batch, from this process's raw inputs and all labels.
    """

    def __init__(
        self, recipe: Recipe, labels: Tensor, fabric: Fabric, look: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        self.recipe, self.labels, self.device, self.look = recipe, labels, fabric.device, look
        self.buffer = torch.empty(
            (recipe.batch_size, 3, recipe.crop, recipe.crop),
            dtype=input_dtype(fabric),
            device=fabric.device,
            memory_format=torch.channels_last,
        )

    def make(self, iteration: BatchPlan, share: LocalBatch, images: Tensor, index: Tensor) -> Iterator[PhaseInput]:
        """Of this process's share of a mini-batch, phase by phase. SnapMix looks at once: that is no input's time.

        Args:
            images, index: where the pixels of the share's entries lie.
        """
        labels = to_device(self.labels[iteration.index], self.device)
        window, own = iteration.window[share.entries], share.rows.stop - share.rows.start
        how: dict[str, Any] = {"index": index, "window": window, "out": self.buffer[: len(index)]}

        def make(plan: Plan) -> Tensor:
            return preprocess(images, plan, dtype=self.buffer.dtype, **how)[:own]

        maps = None
        if self.recipe.augmentation == "snapmix":
            maps = self.look(make(Plan.identity(len(index), (self.recipe.crop,) * 2)), labels)

        def make_each() -> Iterator[PhaseInput]:
            shown: tuple[Plan, Tensor] | None = None
            for draw, plan in zip(iteration.draws, share.plans, strict=True):
                if shown is None or shown[0] is not plan:  # phases may share one input
                    shown = plan, make(plan)
                targets = draw.targets(labels, maps)
                if isinstance(targets, Targets):
                    yield shown[1], Targets(*(part[share.rows] for part in targets))
                else:
                    yield shown[1], targets[share.rows]

        return make_each()
