"""Arrays, channels last: `python examples/albumentations_arrays.py` writes albumentations_arrays.png."""

from typing import Any

import albumentations as A
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont, ImageOps

from mosaicaug import CutMix, Plan, RecursiveMosaic
from mosaicaug.arrays import apply_array, augment_array

COLOURS = {"A": "#e8a33d", "L": "#4f9d69", "B": "#4a7fb5", "U": "#c8553d", "M": "#8d6bb8"}


class Mosaic(A.DualTransform):  # type: ignore[misc, name-defined, unused-ignore]
    """RMG among the transforms of albumentations: one plan is drawn for an image and its mask."""

    _targets = (A.core.type_definitions.Targets.IMAGE, A.core.type_definitions.Targets.MASK)

    def get_params_dependent_on_data(self, params: Any, data: Any) -> dict[str, Plan]:  # noqa: ARG002
        return {"plan": RecursiveMosaic(r=2).sample((1, 3, *params["shape"][:2]))}

    def apply(self, img: Any, plan: Plan, **_: Any) -> Any:
        return apply_array(img, plan)

    def apply_to_mask(self, mask: Any, plan: Plan, **_: Any) -> Any:
        return apply_array(mask, plan)


def draw(letter: str) -> dict[str, Any]:
    """Draw a letter on a slope of colour: uint8 ``[128, 128, 3]``, and its mask ``[128, 128]``."""
    shape = Image.new("L", (128, 128))
    ImageDraw.Draw(shape).text((64, 64), letter, 255, ImageFont.load_default(120), anchor="mm")
    slope = ImageOps.colorize(Image.linear_gradient("L").resize((128, 128)), COLOURS[letter], "#fff6e0")
    image = Image.composite(Image.new("RGB", (128, 128), "#221f33"), slope, shape)
    return {"image": np.array(image), "mask": np.array(shape) // 255}


torch.manual_seed(2)
samples = [draw(letter) for letter in COLOURS]
pipeline = A.Compose([A.HorizontalFlip(p=0.5), A.RandomBrightnessContrast(p=0.5), Mosaic(p=1.0)], seed=4)
tiles = [pipeline(**sample) for sample in samples]
mixed, targets = augment_array(CutMix(), np.stack([one["image"] for one in samples]), np.arange(5))  # [B, H, W, C]
print("weights of the own labels:", targets.weight_a.tolist())
figure = Figure(figsize=(7.5, 4.8), layout="constrained")
rows = {"samples": samples, "A.Compose(...)": tiles, "augment_array": [{"image": one} for one in mixed]}
for places, (name, row) in zip(figure.subplots(3, 5), rows.items(), strict=True):
    places[0].set_ylabel(name, fontsize=12)
    for place, sample in zip(places, row, strict=True):
        place.imshow(sample["image"], interpolation="nearest")
        if "mask" in sample:
            place.contour(sample["mask"], levels=[0.5], colors="white", linewidths=1)
        place.set(xticks=[], yticks=[], frame_on=False, xlim=(-0.5, 127.5), ylim=(127.5, -0.5))
figure.savefig(path := "albumentations_arrays.png", dpi=80, pil_kwargs={"optimize": True})
print(path)
