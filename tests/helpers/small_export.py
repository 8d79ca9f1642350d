"""A network small enough to be exported in a test, and one that per-tensor int8 ruins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pmsi.data.preprocess import describe_preprocessing
from pmsi.deployment.check import CheckImages
from pmsi.deployment.classifier import Classifier
from pmsi.deployment.description import Description
from pmsi.models.base import Logits
from tests.helpers.small_run import RECIPE, make_dataset

SIDE = 8


def describe(classes: tuple[str, ...] = ("dark", "blue"), side: int = SIDE) -> Description:
    shown = describe_preprocessing(RECIPE)
    return Description(
        classes=classes,
        resize=side,
        filter=shown["filter"],
        crop=side,
        mean=(0.0, 0.0, 0.0),
        std=(255.0, 255.0, 255.0),
        output="concat",
        temperature=0.5,
        precision="float32",
        data="colours",
        recipe=RECIPE.to_dict(),
        weights="none",
        written_by="pmsi 0.1.0 (test)",
        versions={},
    )


class Blue(nn.Module):
    """Tells blue images from dark ones by a channel whose weights are a thousandth of its neighbour's.

    The neighbour is the difference of red and green, which are equal in all images, so its values are small: scales
    of activations fit both, one scale of the weights does not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(2)
        self.linear = nn.Linear(2, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([[10.0, -10.0, 0.0], [-0.005, -0.005, 0.01]])[:, :, None, None])
            self.linear.weight.copy_(torch.tensor([[0.0, -900.0], [0.0, 900.0]]))
            self.linear.bias.zero_()

    def forward(self, images: Tensor) -> Logits:
        return Logits((), self.linear(self.norm(self.conv(images)).mean((2, 3))))


def make_blue(count: int = 32) -> tuple[Classifier, Description, CheckImages]:
    """The classifier, its description, and as many images of both kinds."""
    description = describe()
    classifier = Classifier(Blue(), description.mean, description.std, description.temperature, "concat").eval()
    generator = np.random.default_rng(0)
    labels = np.arange(count) // 2 % 2
    levels = generator.integers(60, 120, count)
    images = np.repeat(levels[:, None], 3, 1).astype(np.uint8)
    images[:, 2] = levels + np.where(labels == 1, 60, -40)
    whole = np.broadcast_to(images[:, :, None, None], (count, 3, SIDE, SIDE)).copy()
    return classifier.requires_grad_(requires_grad=False), description, CheckImages(whole, labels, "colours")


def save_photos(folder: Path) -> list[Path]:
    """Test images of the small run as files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, image in enumerate(make_dataset().test.images):
        paths.append(folder / f"{number}.png")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(paths[-1])
    return paths
