"""Loss of Hugging Face's Trainer: not its models' own, and the same however many mini-batches make a step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mosaicaug import CutMix, cross_entropy
from mosaicaug.huggingface import compute_loss


def test_the_loss_is_cross_entropy_of_any_labels() -> None:
    logits, labels = torch.randn(6, 4), torch.arange(6) % 4
    _, targets = CutMix()(torch.rand(6, 3, 8, 8), labels)
    for one in (labels, targets, targets.to_soft(4)):
        wanted = cross_entropy(logits, one)
        assert torch.allclose(compute_loss({"logits": logits}, one), wanted)
        assert torch.allclose(compute_loss(SimpleNamespace(logits=logits), one, torch.tensor(6)), wanted)
    soft = targets.to_soft(4)
    assert not torch.allclose(nn.functional.binary_cross_entropy_with_logits(logits, soft), wanted)


def test_the_trainer_divides_by_images_and_leaves_evaluation_alone(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is missing: pip install transformers")
    pytest.importorskip("accelerate", reason="accelerate is missing: pip install accelerate")
    cutmix = CutMix(num_classes=3)
    seen: list[tuple[bool, torch.Size]] = []

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
            assert labels is None, "the model's own loss is not asked"
            return {"logits": self.head(pixel_values.mean((2, 3)))}

    class MixingTrainer(transformers.Trainer):  # type: ignore[misc, name-defined, unused-ignore]
        def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
            inputs["pixel_values"], inputs["labels"] = cutmix(inputs["pixel_values"], inputs["labels"])
            found: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
            return found

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        seen.append((labels.is_floating_point(), labels.shape))
        if labels.is_floating_point():
            assert int(num_items_in_batch) == 8, "images of both mini-batches"
        return compute_loss(outputs, labels, num_items_in_batch)

    data = [{"pixel_values": torch.rand(3, 8, 8), "labels": number % 3} for number in range(8)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_steps=1,
        report_to=[],
        use_cpu=True,
    )
    trainer = MixingTrainer(Net(), arguments, train_dataset=data, eval_dataset=data, compute_loss_func=loss)
    trainer.train()
    trainer.evaluate()
    assert seen[:2] == [(True, torch.Size([4, 3]))] * 2
    assert seen[2:] == [(False, torch.Size([8]))]
