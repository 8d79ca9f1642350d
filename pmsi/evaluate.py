"""Accuracy on test images: Concat (Eq. 7) and Mix (Eq. 8), from the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mosaicaug import Plan, apply
from pmsi.config import Recipe
from pmsi.data import Split
from pmsi.loader import IMAGENET_MEAN, IMAGENET_STD, test_batches
from pmsi.model import Logits

# Images uint8 [B, 3, h, w] after the crop, and their numbers in the split, int64 [B], to images of the same kind.
Corrupt = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Evaluation:
    """Accuracies in percent, and the predicted class of every test image in order."""

    concat: float
    mix: float
    stages: tuple[float, ...]
    concat_predictions: Tensor  # int64 [N], on the CPU
    mix_predictions: Tensor  # int64 [N], on the CPU


def evaluate(model: nn.Module, split: Split, recipe: Recipe, *, corrupt: Corrupt | None = None) -> Evaluation:
    """Predict every image of ``split``, which lies on the model's device; ``corrupt`` changes the cropped images."""
    was_training = model.training
    model.eval()
    predictions = []  # [S + 2, B] each: stages, concat, mix
    with torch.inference_mode():
        for index, window in test_batches(recipe, len(split.labels)):
            raw = Plan.identity(len(index), (recipe.crop, recipe.crop))
            if corrupt is None:
                inputs = show(split.images, raw, index, window)
            else:
                cropped = corrupt(apply(split.images, raw, index=index, window=window), index)
                inputs = show(cropped, raw, torch.arange(len(index)), torch.zeros_like(window))
            logits: Logits = model(inputs)
            predictions.append(torch.stack([one.argmax(1) for one in (*logits.stages, logits.concat, logits.mix)]))
    model.train(was_training)
    found = torch.cat(predictions, 1)
    *stages, concat, mix = (found == split.labels).double().mean(1).mul(100).tolist()
    return Evaluation(concat, mix, tuple(stages), found[-2].cpu(), found[-1].cpu())


def show(images: Tensor, plan: Plan, index: Tensor, window: Tensor) -> Tensor:
    """Network inputs ``[B, 3, crop, crop]`` float32, channels_last, from stored uint8 images."""
    return apply(
        images,
        plan,
        index=index,
        window=window,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        memory_format=torch.channels_last,
    )
