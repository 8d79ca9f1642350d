"""The first things to know: `python examples/quickstart.py` writes docs/quickstart.png."""

from __future__ import annotations

from pathlib import Path

import torch
from gallery import draw
from matplotlib.figure import Figure
from torch import nn

from mosaicaug import CutMix, Jigsaw, RecursiveMosaic, apply, cross_entropy

CLASSES = "MOSAIC"

torch.manual_seed(18)
images = torch.stack([draw(letter, number / 6) for number, letter in enumerate(CLASSES)])  # uint8 [6, 3, 224, 224]
labels = torch.arange(6)

jigsaws = Jigsaw(n=4)(images)  # labels stay
mixed, targets = CutMix()(images, labels)  # two labels and two weights for every image

network = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 6))
optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
loss = cross_entropy(network(mixed / 255), targets)
loss.backward()  # type: ignore[no-untyped-call]
optimizer.step()

plan = RecursiveMosaic(r=3).sample(images.shape)  # a draw is a value: apply it, log it, undo it
mosaics = apply(images, plan)
restored = apply(mosaics, plan.invert())
assert torch.equal(restored, images)

figure = Figure(figsize=(9, 7.8), layout="constrained")
rows = {
    "images": images,
    "Jigsaw(n=4)": jigsaws,
    "CutMix()": mixed,
    "RecursiveMosaic\n(r=3)": mosaics,
    "inverted": restored,
}
for axes, (name, row) in zip(figure.subplots(5, 6), rows.items(), strict=True):
    axes[0].set_ylabel(name, fontsize=12)
    for number, (place, image) in enumerate(zip(axes, row, strict=True)):
        place.imshow(image[:, ::2, ::2].permute(1, 2, 0).numpy(), interpolation="nearest")
        place.set(xticks=[], yticks=[], frame_on=False)
        title = CLASSES[number]
        if row is mixed:
            label_a, label_b, weight_a, weight_b = (column[number] for column in targets)
            title = f"{weight_a:.2f} {CLASSES[label_a]} + {weight_b:.2f} {CLASSES[label_b]}"
        place.set_title(title, fontsize=11)
path = Path(__file__).parents[1] / "docs" / "quickstart.png"
figure.savefig(path, dpi=88, pil_kwargs={"optimize": True})
print(f"loss {loss:.2f}, {path}")
