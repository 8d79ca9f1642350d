"""Loss of Hugging Face's `Trainer` for mixed images: its models' own loss takes soft labels for several labels.

A classification model of transformers chooses its loss by its labels: floating ones make it *binary* cross entropy, for
any number of classes at once, without a word. Give `Trainer` this one, and mix in ``training_step``: its collator makes
the batches of evaluation too, and counts soft labels ``[B, K]`` as ``B * K`` items.

Examples:
    >>> class MixingTrainer(Trainer):  # doctest: +SKIP
    ...     def training_step(self, model, inputs, num_items_in_batch=None):
    ...         mixed = cutmix(inputs["pixel_values"], inputs["labels"])
    ...         inputs["pixel_values"], inputs["labels"] = mixed
    ...         return super().training_step(model, inputs, num_items_in_batch)
    >>> trainer = MixingTrainer(model, arguments, train_dataset=data, compute_loss_func=compute_loss)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mosaicaug.targets import Targets, cross_entropy


def compute_loss(outputs: Any, labels: Tensor | Targets, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Cross entropy of hard labels, soft labels or `Targets`: ``compute_loss_func`` of transformers' `Trainer`.

    Args:
        outputs: of the model, with ``logits`` ``[B, K]`` as an attribute or a key.
        labels: integer ``[B]``, soft ``[B, K]``, or ``Targets``.
        num_items_in_batch: images of all mini-batches of one optimiser step, by which `Trainer` leaves it to this
            function to divide; None divides by B.

    >>> import torch
    >>> from mosaicaug.huggingface import compute_loss
    >>> soft = torch.tensor([[0.75, 0.25, 0.0, 0.0]])
    >>> round(compute_loss({"logits": torch.zeros(1, 4)}, soft).item(), 4)
    1.3863
    """
    logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs.logits
    if num_items_in_batch is None:
        return cross_entropy(logits, labels)
    return cross_entropy(logits, labels, reduction="sum") / num_items_in_batch
