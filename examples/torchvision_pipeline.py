"""Boxes, masks, keypoints: `python examples/torchvision_pipeline.py` writes docs/torchvision_pipeline.png."""

from pathlib import Path
from typing import Any

import torch
from gallery import draw
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch.utils.data import DataLoader, default_collate
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from mosaicaug import CutMix, RecursiveMosaic
from mosaicaug.torchvision import V2Transform


def collate(samples: list[Any]) -> Any:
    """Stacked with their types, which `default_collate` alone would drop."""
    with tv_tensors.set_return_type("TVTensor"):
        return default_collate(samples)


def make_sample(letter: str, number: int) -> dict[str, Any]:
    """A letter with its mask, its box and its four outermost corners."""
    image, canvas = draw(letter, number / 5), {"canvas_size": (224, 224)}
    mask = image.float().mean(0) < 60
    y, x = mask.nonzero().unbind(1)
    corners = torch.stack([(x + y).argmin(), (x - y).argmax(), (x + y).argmax(), (x - y).argmin()])
    return {
        "image": tv_tensors.Image(image),
        "mask": tv_tensors.Mask(mask),
        "boxes": tv_tensors.BoundingBoxes(masks_to_boxes(mask[None]), format="XYXY", **canvas),
        "points": tv_tensors.KeyPoints(torch.stack([x, y], 1)[corners].float(), **canvas),
        "labels": torch.tensor([number]),
    }


torch.manual_seed(94)
tiles = v2.Compose([v2.RandomHorizontalFlip(), V2Transform(RecursiveMosaic(r=1)), v2.SanitizeBoundingBoxes()])
cutmix = V2Transform(CutMix())
data: Any = [make_sample(letter, number) for number, letter in enumerate("PIXEL")]
[mixed] = DataLoader(data, batch_size=5, collate_fn=lambda samples: cutmix(collate(samples)))
figure = Figure(figsize=(9, 5.7), layout="constrained")
rows = {"samples": collate(data), "tiles(sample)": collate([tiles(one) for one in data]), "cutmix(batch)": mixed}
for axes, (name, batch) in zip(figure.subplots(3, 5), rows.items(), strict=True):
    axes[0].set_ylabel(name, fontsize=12)
    for place, image, mask, boxes, points in zip(axes, *list(batch.values())[:4], strict=True):
        place.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        place.contour(mask, levels=[0.5], colors="white", linewidths=1.5)
        for x0, y0, x1, y1 in boxes:
            place.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ls="--", lw=1.5))
        colours = ["red", "orange", "lime", "cyan"] * (len(points) // 4)  # the partner's come after the own ones
        place.scatter(*points.T, c=colours, edgecolors="black", zorder=3)
        place.set(xlim=(-0.5, 223.5), ylim=(223.5, -0.5), xticks=[], yticks=[], frame_on=False)
path = Path(__file__).parents[1] / "docs" / "torchvision_pipeline.png"
figure.savefig(path, dpi=80, pil_kwargs={"optimize": True})
print(path)
