"""Training steps as in timm's script: `python examples/timm_train_step.py` writes docs/timm_train_step.png."""

from pathlib import Path

import timm
import torch
from gallery import draw
from matplotlib.figure import Figure
from timm.loss import SoftTargetCrossEntropy  # type: ignore[attr-defined]

from mosaicaug import Compose, CutMix, RecursiveMosaic
from mosaicaug.timm import Mixup  # the line that changes; it was `from timm.data import Mixup`

CLASSES = {"T": "tab:red", "I": "tab:olive", "M": "tab:green", "N": "tab:cyan", "E": "tab:blue", "W": "tab:purple"}
mixup_fns = {
    "Mixup, as timm's": Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, mode="elem", num_classes=6),
    "RMG and CutMix": Mixup(augmentation=Compose([RecursiveMosaic(r=2), CutMix()]), num_classes=6),
}

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
        starts = weights.cumsum(0) - weights
        bar.barh([0] * 6, weights, left=starts, color=list(CLASSES.values()))
        for letter, weight, start in zip(CLASSES, weights.tolist(), starts.tolist(), strict=True):
            if weight > 0.1:
                text = f"{letter} {weight:.2f}" if weight > 0.3 else letter
                bar.text(start + weight / 2, 0, text, ha="center", va="center", color="white", fontsize=9)
        bar.set(xlim=(0, 1), ylim=(-0.4, 0.4))
for place in axes.flat:
    place.set(xticks=[], yticks=[], frame_on=False)
path = Path(__file__).parents[1] / "docs" / "timm_train_step.png"
figure.savefig(path, dpi=82, pil_kwargs={"optimize": True})
print(path)
