"""One image under all five augmentations: `python examples/gallery.py [IMAGE PARTNER]` writes docs/gallery.png."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from mosaicaug import Augmentation, CutMix, Jigsaw, MixUp, RecursiveMosaic, SnapMix

SIDE = 224  # px
SEEDS = {
    "RecursiveMosaic(r=1)": 1,
    "RecursiveMosaic(r=3)": 4,
    "Jigsaw(n=4)": 0,
    "CutMix()": 16,
    "MixUp()": 3,
    "SnapMix()": 32,
}


def main(paths: list[str]) -> None:
    """Show two image files, or two letters."""
    images = torch.stack([read(path) for path in paths] if paths else [draw("R", 0.05), draw("G", 0.45)])
    augmentations: list[Augmentation] = [
        RecursiveMosaic(1),
        RecursiveMosaic(3),
        Jigsaw(4),
        CutMix(),
        MixUp(),
        SnapMix(),
    ]
    centre = torch.exp(-(torch.linspace(-2, 2, 7) ** 2))
    maps = (centre[:, None] * centre).expand(2, -1, -1)  # what matters is in the middle
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    axes = figure.subplots(2, 4)
    show(axes[0, 0], images[0], "image, label a")
    show(axes[1, 0], images[1], "partner, label b")
    for place, aug, (name, seed) in zip(axes[:, 1:].flat, augmentations, SEEDS.items(), strict=True):
        made, targets = aug(images, torch.tensor([0, 1]), maps=maps, generator=torch.Generator().manual_seed(seed))
        label = f"a {targets.weight_a[0]:.2f}, b {targets.weight_b[0]:.2f}" if aug.mixes else "a"
        show(place, made[0], f"{name}: {label}")
    path = Path(__file__).parents[1] / "docs" / "gallery.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=80)
    print(path)


def read(path: str) -> Tensor:
    """Central square of an image file, uint8 ``[3, SIDE, SIDE]``."""
    image = transforms.pil_to_tensor(Image.open(path).convert("RGB"))
    square = transforms.center_crop(image, [min(image.shape[1:])] * 2)
    resized: Tensor = transforms.resize(square, [SIDE, SIDE], antialias=True)
    return resized


def draw(letter: str, hue: float) -> Tensor:
    """A letter on a slope of colour, so that every tile shows where it comes from: uint8 ``[3, SIDE, SIDE]``."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    colours = hsv_to_rgb(np.stack([hue + 0.3 * x, 0.35 + 0.4 * y, 1 - 0.25 * y], axis=-1))
    image = Image.fromarray((colours * 255).astype(np.uint8))
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSerif-Bold.ttf"), 0.95 * SIDE)
    ImageDraw.Draw(image).text((SIDE / 2, SIDE / 2), letter, fill=(25, 20, 40), font=font, anchor="mm")
    picture: Tensor = transforms.pil_to_tensor(image)
    return picture


def show(place: Axes, image: Tensor, title: str) -> None:
    """One picture with its title."""
    place.imshow(image.permute(1, 2, 0).numpy())
    place.set_title(title, fontsize=12)
    place.set_axis_off()


if __name__ == "__main__":
    main(sys.argv[1:])
