"""The first things to know: `python examples/quickstart.py` writes quickstart.png."""

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from mosaicaug import CutMix, Jigsaw, RecursiveMosaic, apply, cross_entropy

CLASSES = "MOSAIC"


def draw(letter: str, hue: float) -> torch.Tensor:
    """Draw a letter on a slope of colour, so that every tile shows its origin: uint8 ``[3, 224, 224]``."""
    y, x = np.mgrid[0:224, 0:224] / 224
    colours = hsv_to_rgb(np.stack([hue + 0.3 * x, 0.35 + 0.4 * y, 1 - 0.25 * y], axis=-1))
    image = Image.fromarray((colours * 255).astype(np.uint8))
    font = ImageFont.truetype(findfont("DejaVu Serif:bold"), 212)
    ImageDraw.Draw(image).text((112, 112), letter, fill=(25, 20, 40), font=font, anchor="mm")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


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
names = ["images", "Jigsaw(n=4)", "CutMix()", "RecursiveMosaic\n(r=3)", "inverted"]
for axes, name, row in zip(figure.subplots(5, 6), names, [images, jigsaws, mixed, mosaics, restored], strict=True):
    axes[0].set_ylabel(name, fontsize=12)
    for number, (place, image) in enumerate(zip(axes, row, strict=True)):
        place.imshow(image[:, ::2, ::2].permute(1, 2, 0).numpy(), interpolation="nearest")
        place.set(xticks=[], yticks=[], frame_on=False)
        a, b, weight_a, weight_b = (column[number] for column in targets)
        mixture = f"{weight_a:.2f} {CLASSES[a]} + {weight_b:.2f} {CLASSES[b]}"
        place.set_title(mixture if row is mixed else CLASSES[number], fontsize=11)
figure.savefig(path := "quickstart.png", dpi=88, pil_kwargs={"optimize": True})
print(f"loss {loss:.2f}, {path}")
