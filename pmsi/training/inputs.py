"""Network inputs of the phases of a mini-batch: from stored images to normalised inputs and targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from lightning_fabric import Fabric
from torch import Tensor

from mosaicaug import Plan, Targets
from pmsi.data.preprocess import preprocess
from pmsi.data.storage import to_device
from pmsi.recipe import Recipe
from pmsi.runtime.devices import input_dtype
from pmsi.training.batches import LocalBatch
from pmsi.training.phases import needs_maps

PhaseInput = tuple[Tensor, Tensor | Targets]  # normalised images [B, 3, H, W], and their targets


class PhaseInputs:
    """Builds the network input of each phase, one at a time, in one buffer that all phases share.

    (On a CPU, fresh memory costs more than writing to it.) An input is overwritten when the next one is made.

    Args:
        recipe: sizes and augmentation.
        fabric: device and precision.
        maps: makes SnapMix's maps ``[B, h, w]`` of the whole batch from the raw inputs of this process and all labels;
            needed for augmentations that weigh labels by maps.

    Raises:
        ValueError: the augmentation needs ``maps``.
    """

    def __init__(self, recipe: Recipe, fabric: Fabric, maps: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        if maps is None and needs_maps(recipe):
            raise ValueError(f"PhaseInputs: augmentation {recipe.augmentation} needs class activation maps; pass maps=")
        self.recipe, self.device, self.maps = recipe, fabric.device, maps if needs_maps(recipe) else None
        self.buffer = torch.empty(
            (recipe.batch_size, 3, recipe.crop, recipe.crop),
            dtype=input_dtype(fabric),
            device=fabric.device,
            memory_format=torch.channels_last,
        )

    def make(self, share: LocalBatch, images: Tensor, index: Tensor) -> Iterator[PhaseInput]:
        """Yield the inputs of this process, one per phase.

        Maps are computed before the first yield, so that their time is not counted as input time.

        Args:
            share: of the mini-batch.
            images, index: stored images, and the rows of them that ``share.index`` asks for, as a store yields them.
        """
        labels = to_device(share.batch.labels, self.device)
        maps = None
        if self.maps is not None:
            raw = Plan.identity(len(index), (self.recipe.crop,) * 2)
            maps = self.maps(self._show(share, images, index, raw), labels)
        return self._make_each(share, images, index, labels, maps)

    def _make_each(
        self, share: LocalBatch, images: Tensor, index: Tensor, labels: Tensor, maps: Tensor | None
    ) -> Iterator[PhaseInput]:
        made: tuple[Plan, Tensor] | None = None
        for draw, plan in zip(share.batch.draws, share.plans, strict=True):
            if made is None or made[0] is not plan:  # phases may share one input
                made = plan, self._show(share, images, index, plan)
            targets = draw.targets(labels, maps)
            if isinstance(targets, Targets):
                yield made[1], Targets(*(part[share.rows] for part in targets))
            else:
                yield made[1], targets[share.rows]

    def _show(self, share: LocalBatch, images: Tensor, index: Tensor, plan: Plan) -> Tensor:
        """Own images of a share under a plan, normalised, in the buffer."""
        out = self.buffer[: len(index)]
        return preprocess(images, plan, index, share.window, dtype=out.dtype, out=out)[: share.count]
