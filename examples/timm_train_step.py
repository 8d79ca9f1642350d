"""Training steps as in timm's script: `python examples/timm_train_step.py` writes timm_train_step.png."""

import numpy as np
import timm
import torch
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from timm.loss import SoftTargetCrossEntropy  # type: ignore[attr-defined]

from mosaicaug import Compose, CutMix, RecursiveMosaic
from mosaicaug.timm import Mixup  # the line that changes; it was `from timm.data import Mixup`

CLASSES = {"T": "tab:red", "I": "tab:olive", "M": "tab:green", "N": "tab:cyan", "E": "tab:blue", "W": "tab:purple"}
mixup_fns = {
    "Mixup, as timm's": Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, mode="elem", num_classes=6),
    "RMG and CutMix": Mixup(augmentation=Compose([RecursiveMosaic(r=2), CutMix()]), num_classes=6),
}


def draw(letter: str, hue: float) -> torch.Tensor:
    """Draw a letter on a slope of colour, so that every tile shows its origin: uint8 ``[3, 224, 224]``."""
    y, x = np.mgrid[0:224, 0:224] / 224
    colours = hsv_to_rgb(np.stack([hue + 0.3 * x, 0.35 + 0.4 * y, 1 - 0.25 * y], axis=-1))
    image = Image.fromarray((colours * 255).astype(np.uint8))
    font = ImageFont.truetype(findfont("DejaVu Serif:bold"), 212)
    ImageDraw.Draw(image).text((112, 112), letter, fill=(25, 20, 40), font=font, anchor="mm")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


model = timm.create_model("resnet10t", pretrained=False, num_classes=6)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
loss_fn = SoftTargetCrossEntropy()  # type: ignore[no-untyped-call]
images = torch.stack([draw(letter, number / 6) for number, letter in enumerate(CLASSES)]) / 255
labels = torch.arange(6)
torch.manual_seed(658)

figure = Figure(figsize=(9, 4.2), layout="constrained")
axes = figure.subplots(4, 6, height_ratios=[6, 1, 6, 1])
for (pictures, bars), (name, mixup_fn) in zip(axes.reshape(2, 2, 6), mixup_fns.items(), strict=True):
    mixed, target = mixup_fn(images, labels)
    loss = loss_fn(model(mixed), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"{name}: loss {loss:.2f}")

    pictures[0].set_ylabel(name, fontsize=12)
    for picture, bar, image, weights in zip(pictures, bars, mixed, target, strict=True):
        picture.imshow(image[:, ::2, ::2].permute(1, 2, 0).numpy(), interpolation="nearest")
        parts = bar.barh([0] * 6, weights, left=weights.cumsum(0) - weights, color=list(CLASSES.values()))
        texts = [f"{letter} {w:.2f}"[: 6 if w > 0.3 else w > 0.1] for letter, w in zip(CLASSES, weights, strict=True)]
        bar.bar_label(parts, texts, label_type="center", color="white", fontsize=9)
        bar.set(xlim=(0, 1), ylim=(-0.4, 0.4))
for place in axes.flat:
    place.set(xticks=[], yticks=[], frame_on=False)
figure.savefig(path := "timm_train_step.png", dpi=82, pil_kwargs={"optimize": True})
print(path)
