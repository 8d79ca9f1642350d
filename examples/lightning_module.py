"""Mixing on the device, in Lightning: `python examples/lightning_module.py` writes lightning_module.png."""

from typing import Any

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.v2.functional import pil_to_tensor

from mosaicaug import Compose, CutMix, RecursiveMosaic, Targets, cross_entropy

COLOURS = {"L": "#e8a33d", "I": "#4f9d69", "G": "#4a7fb5", "H": "#c8553d", "T": "#8d6bb8"}


class Classifier(pl.LightningModule):
    """A small network; Lightning calls ``eval()`` before it validates, which switches the augmentation off too."""

    def __init__(self) -> None:
        super().__init__()
        self.augment = Compose([RecursiveMosaic(r=2), CutMix()])
        self.network = nn.Sequential(nn.Conv2d(3, 5, 7, 4), nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.seen: dict[bool, tuple[Tensor, Targets]] = {}

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> tuple[Tensor, Targets]:  # noqa: ARG002
        images, targets = self.seen[self.training] = self.augment(*batch)  # uint8, where the network is
        return images / 255, targets

    def training_step(self, batch: tuple[Tensor, Targets]) -> Tensor:
        return cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Targets]) -> None:
        self.log("loss", self.training_step(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def draw(letter: str) -> Tensor:
    """Draw a letter on a slope of colour: uint8 ``[3, 128, 128]``."""
    image = ImageOps.colorize(Image.linear_gradient("L").resize((128, 128)), COLOURS[letter], "#fff6e0")
    ImageDraw.Draw(image).text((64, 64), letter, "#221f33", ImageFont.load_default(120), anchor="mm")
    return torch.as_tensor(pil_to_tensor(image))


torch.manual_seed(6)
loader = DataLoader(TensorDataset(torch.stack([draw(letter) for letter in COLOURS]), torch.arange(5)), batch_size=5)
model, trainer = Classifier(), pl.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)
trainer.fit(model, loader, loader)
figure = Figure(figsize=(7.5, 3.6), layout="constrained")
for row, (training, (images, targets)) in zip(figure.subplots(2, 5), reversed(model.seen.items()), strict=True):
    row[0].set_ylabel("training" if training else "validation", fontsize=12)
    for place, image, own, share in zip(row, images, targets.labels_a, targets.weight_a, strict=True):
        place.imshow(image.permute(1, 2, 0), interpolation="nearest")
        place.set(xticks=[], yticks=[], frame_on=False, xlabel=f"{'LIGHT'[own]} {share:.2f}")
figure.savefig(path := "lightning_module.png", dpi=80, pil_kwargs={"optimize": True})
print(path)
