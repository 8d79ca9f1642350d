"""One image under all five augmentations: `python examples/gallery.py [IMAGE PARTNER]` writes gallery.png."""

import sys

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from mosaicaug import CutMix, Jigsaw, MixUp, RecursiveMosaic, SnapMix

SIDE = 224  # px
AUGMENTATIONS = {  # with the seed of the draw that is shown
    "RecursiveMosaic(r=1)": (RecursiveMosaic(r=1), 1),
    "RecursiveMosaic(r=3)": (RecursiveMosaic(r=3), 4),
    "Jigsaw(n=4)": (Jigsaw(n=4), 0),
    "CutMix()": (CutMix(), 16),
    "MixUp()": (MixUp(), 3),
    "SnapMix()": (SnapMix(), 32),
}


def read(path: str) -> Tensor:
    """Read the central square of an image file as uint8 ``[3, SIDE, SIDE]``."""
    upright = ImageOps.exif_transpose(Image.open(path))  # phones store photographs on their side
    square = ImageOps.fit(upright.convert("RGB"), (SIDE, SIDE))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def draw(letter: str, hue: float) -> Tensor:
    """Draw a letter on a slope of colour, so that every tile shows its origin: uint8 ``[3, SIDE, SIDE]``."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    colours = hsv_to_rgb(np.stack([hue + 0.3 * x, 0.35 + 0.4 * y, 1 - 0.25 * y], axis=-1))
    image = Image.fromarray((colours * 255).astype(np.uint8))
    font = ImageFont.truetype(findfont("DejaVu Serif:bold"), 0.95 * SIDE)
    ImageDraw.Draw(image).text((SIDE / 2, SIDE / 2), letter, fill=(25, 20, 40), font=font, anchor="mm")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


images = torch.stack([read(path) for path in sys.argv[1:3]] or [draw("R", 0.05), draw("G", 0.45)])
centre = torch.exp(-(torch.linspace(-2, 2, 7) ** 2))
maps = (centre[:, None] * centre).expand(2, -1, -1)  # class activation maps: what matters is in the middle
shown = {"image, label a": images[0], "partner, label b": images[1]}
for name, (aug, seed) in AUGMENTATIONS.items():
    made, targets = aug(images, torch.tensor([0, 1]), maps=maps, generator=torch.Generator().manual_seed(seed))
    label = f"a {targets.weight_a[0]:.2f}, b {targets.weight_b[0]:.2f}" if aug.mixes else "a"
    shown[f"{name}: {label}"] = made[0]
figure = Figure(figsize=(12, 6.5), layout="constrained")
axes = figure.subplots(2, 4)
for place, (title, image) in zip([*axes[:, 0], *axes[:, 1:].flat], shown.items(), strict=True):
    place.imshow(image.permute(1, 2, 0).numpy())
    place.set_title(title, fontsize=12)
    place.set_axis_off()
figure.savefig(path := "gallery.png", dpi=80)
print(path)
