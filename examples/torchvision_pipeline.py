"""Boxes, masks, keypoints: `python examples/torchvision_pipeline.py` writes torchvision_pipeline.png."""

from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from torch.utils.data import DataLoader, default_collate
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from mosaicaug import CutMix, RecursiveMosaic
from mosaicaug.torchvision import V2Transform

COLOURS = ["#e8a33d", "#4f9d69", "#4a7fb5", "#c8553d", "#8d6bb8"]


def collate(samples: list[Any]) -> Any:
    """Stack samples and keep their types, which `default_collate` alone would drop."""
    with tv_tensors.set_return_type("TVTensor"):
        return default_collate(samples)


def make_sample(letter: str, number: int) -> dict[str, Any]:
    """Draw a letter on a slope of colour, with its mask, its box and its four outermost corners."""
    shape, slope = Image.new("L", (224, 224)), Image.linear_gradient("L").resize((224, 224))
    font, canvas = ImageFont.truetype(findfont("DejaVu Serif:bold"), 212), {"canvas_size": (224, 224)}
    ImageDraw.Draw(shape).text((112, 112), letter, fill=255, font=font, anchor="mm")
    ink, low, high = (Image.new("RGB", shape.size, name) for name in ("#221f33", COLOURS[number], "#fff6e0"))
    image = Image.composite(ink, Image.composite(low, high, slope), shape)
    mask = tv_tensors.Mask(shape)[0] > 127
    y, x = mask.nonzero().unbind(1)
    corners = torch.stack([(x + y).argmin(), (x - y).argmax(), (x + y).argmax(), (x - y).argmin()])
    box = tv_tensors.BoundingBoxes(masks_to_boxes(mask[None]), format="XYXY", **canvas)
    points = tv_tensors.KeyPoints(torch.stack([x, y], 1)[corners].float(), **canvas)
    sample = {"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(mask)}
    return sample | {"boxes": box, "points": points, "labels": torch.tensor([number])}


torch.manual_seed(94)
tiles = v2.Compose([v2.RandomHorizontalFlip(), V2Transform(RecursiveMosaic(r=1)), v2.SanitizeBoundingBoxes()])
data: Any = [make_sample(letter, number) for number, letter in enumerate("PIXEL")]
[mixed] = DataLoader(data, batch_size=5, collate_fn=lambda samples: V2Transform(CutMix())(collate(samples)))
figure = Figure(figsize=(9, 5.7), layout="constrained")
rows = {"samples": collate(data), "tiles(sample)": collate([tiles(one) for one in data]), "cutmix(batch)": mixed}
for axes, (name, batch) in zip(figure.subplots(3, 5), rows.items(), strict=True):
    axes[0].set_ylabel(name, fontsize=12)
    for place, image, mask, boxes, points in zip(axes, *list(batch.values())[:4], strict=True):
        place.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        place.contour(mask, levels=[0.5], colors="white", linewidths=1.5)
        for x0, y0, x1, y1 in boxes:
            place.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], "k--", lw=1.5)
        colours = ["red", "orange", "lime", "cyan"] * (len(points) // 4)  # the partner's come after the own ones
        place.scatter(*points.T, c=colours, edgecolors="black", zorder=3)
        place.set(xlim=(-0.5, 223.5), ylim=(223.5, -0.5), xticks=[], yticks=[], frame_on=False)
figure.savefig(path := "torchvision_pipeline.png", dpi=80, pil_kwargs={"optimize": True})
print(path)
