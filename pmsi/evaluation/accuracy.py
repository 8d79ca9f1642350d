"""Accuracy on test images: Concat (Eq. 7) and Mix (Eq. 8), from the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mosaicaug import Plan, apply
from pmsi.data.preprocess import center_window, preprocess
from pmsi.data.storage import ImageStore, Split, make_store
from pmsi.models.base import Logits
from pmsi.recipe import Recipe
from pmsi.runtime.devices import input_dtype
from pmsi.runtime.session import Session

# Images uint8 [B, 3, h, w] after the crop, and their numbers in the split, int64 [B], to images of the same kind.
Corrupt = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Evaluation:
    """Accuracies in percent, and the predicted class of every test image in order.

    Args:
        concat, mix, stages: accuracies.
        concat_predictions, mix_predictions: int64 ``[N]``, on the CPU.
        logits: float32 ``[N, K]``, on the CPU: Mix, or Concat where the stages are not trained. Empty where they were
            not kept.
    """

    concat: float
    mix: float
    stages: tuple[float, ...]
    concat_predictions: Tensor
    mix_predictions: Tensor
    logits: Tensor = field(default_factory=lambda: torch.empty(0, 0))


def evaluate(
    network: nn.Module,
    data: Split | ImageStore,
    recipe: Recipe,
    session: Session | None = None,
    *,
    corrupt: Corrupt | None = None,
    pause: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Predict every image of ``data``, once, on one of the processes.

    Args:
        network: gives `Logits`; moved to the session's device, and not wrapped for several processes.
        data: test images and their labels.
        recipe: sizes of images and mini-batches.
        session: device, precision and processes; None opens the best device of this machine.
        corrupt: changes the cropped images.
        pause: called after each mini-batch, as often on all processes.
    """
    session = session or Session()
    fabric, processes = session.fabric, session.processes
    store = make_store(data, fabric.device) if isinstance(data, Split) else data
    count = len(store.labels)
    rows = torch.arange(count)[processes.split(count)]
    rounds = -(-count // (processes.count * recipe.batch_size))
    parts = [rows[number * recipe.batch_size : (number + 1) * recipe.batch_size] for number in range(rounds)]
    fetched = store.fetch(part for part in parts if len(part))
    dtype, was_training = input_dtype(fabric), network.training
    found: Tensor | None = None  # [S + 3, N]: predictions of stages, concat and mix, and how often each was predicted
    answers = torch.empty(0, 0)  # [N, K]
    network.to(fabric.device).eval()
    with torch.inference_mode(), fabric.autocast():
        for part in parts:
            if len(part):
                images, index = next(fetched)
                raw = Plan.identity(len(part), (recipe.test_side,) * 2)
                window = center_window(recipe, len(part))
                if corrupt is not None:
                    images = corrupt(apply(images, raw, index=index, window=window), part)
                    index, window = torch.arange(len(part)), torch.zeros_like(window)
                shown = preprocess(images, raw, index, window, dtype)
                logits: Logits = network(shown)
                predicted = [one.argmax(1) for one in (*logits.stages, logits.concat, logits.mix)]
                if found is None:
                    found = torch.zeros(len(predicted) + 1, count, dtype=torch.int64, device=shown.device)
                    answers = torch.zeros(count, logits.concat.shape[1], device=shown.device)
                here = slice(int(part[0]), int(part[-1]) + 1)
                found[:, here] = torch.stack([*predicted, torch.ones_like(predicted[0])])
                answers[here] = pick_answer(logits, recipe)
            pause()
    network.train(was_training)
    height, classes = map(processes.max_over_processes, (0 if found is None else len(found), answers.shape[1]))
    if found is None:  # more processes than images
        found = torch.zeros(height, count, dtype=torch.int64, device=fabric.device)
        answers = torch.zeros(count, classes, device=fabric.device)
    *predictions, times = processes.sum(found).cpu()
    assert (times == 1).all(), "every test image is predicted exactly once"
    *stages, concat, mix = (100 * (one == store.labels).double().mean().item() for one in predictions)
    whole = processes.sum(answers).cpu()
    return Evaluation(concat, mix, tuple(stages), predictions[-2], predictions[-1], whole)


def pick_answer(logits: Logits, recipe: Recipe) -> Tensor:
    """Logits ``[B, K]`` that a network answers by: Mix, or Concat where the stages are not trained."""
    return logits.mix if recipe.progressive else logits.concat
