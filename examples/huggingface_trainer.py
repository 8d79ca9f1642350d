"""Mixing in Hugging Face's Trainer: `python examples/huggingface_trainer.py` writes huggingface_trainer.png."""

from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torchvision.transforms.v2.functional import pil_to_tensor
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

from mosaicaug import Compose, CutMix, RecursiveMosaic
from mosaicaug.huggingface import compute_loss

COLOURS = {"H": "#e8a33d", "U": "#4f9d69", "G": "#4a7fb5", "F": "#c8553d", "A": "#8d6bb8"}
augment = Compose([RecursiveMosaic(r=2), CutMix(num_classes=5)])
seen: list[dict[str, torch.Tensor]] = []


class MixingTrainer(Trainer):  # type: ignore[misc, unused-ignore]
    """Trainer that mixes where the network is; its collator would mix the batches of evaluation too."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        inputs["pixel_values"], inputs["labels"] = augment(inputs["pixel_values"], inputs["labels"])
        seen.append(dict(inputs))
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss


def draw(letter: str) -> torch.Tensor:
    """Draw a letter on a slope of colour: float ``[3, 128, 128]``."""
    image = ImageOps.colorize(Image.linear_gradient("L").resize((128, 128)), COLOURS[letter], "#fff6e0")
    ImageDraw.Draw(image).text((64, 64), letter, "#221f33", ImageFont.load_default(120), anchor="mm")
    return torch.as_tensor(pil_to_tensor(image)) / 255


torch.manual_seed(3)
data: Any = [{"pixel_values": draw(letter), "labels": number} for number, letter in enumerate(COLOURS)]
config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=5)
trainer = MixingTrainer(
    ResNetForImageClassification(config),
    TrainingArguments("build", max_steps=2, per_device_train_batch_size=5, report_to=[], use_cpu=True, seed=3),
    train_dataset=data,
    eval_dataset=data,
    compute_loss_func=compute_loss,  # the model's own would be binary cross entropy, for several labels at once
)
trainer.train()
print(f"evaluation: loss {trainer.evaluate()['eval_loss']:.2f}")
figure = Figure(figsize=(7.5, 3.8), layout="constrained")
for row, (step, batch) in zip(figure.subplots(2, 5), enumerate(seen, 1), strict=True):
    row[0].set_ylabel(f"step {step}", fontsize=12)
    for place, image, soft in zip(row, batch["pixel_values"], batch["labels"], strict=True):
        place.imshow(image.permute(1, 2, 0), interpolation="nearest")
        shares = [f"{letter} {share:.2f}" for letter, share in zip(COLOURS, soft, strict=True) if share > 0]
        place.set(xticks=[], yticks=[], frame_on=False, xlabel=", ".join(shares))
figure.savefig(path := "huggingface_trainer.png", dpi=80, pil_kwargs={"optimize": True})
print(path)
