"""Loop of accelerate, draws by process: `python examples/accelerate_loop.py` writes accelerate_loop.png."""

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.v2.functional import pil_to_tensor

from mosaicaug import CutMix, Jigsaw, MixUp, OneOf, RecursiveMosaic, cross_entropy

COLOURS = {"S": "#e8a33d", "P": "#4f9d69", "E": "#4a7fb5", "D": "#c8553d", "Y": "#8d6bb8"}


def draw(letter: str) -> torch.Tensor:
    """Draw a letter on a slope of colour: uint8 ``[3, 128, 128]``."""
    image = ImageOps.colorize(Image.linear_gradient("L").resize((128, 128)), COLOURS[letter], "#fff6e0")
    ImageDraw.Draw(image).text((64, 64), letter, "#221f33", ImageFont.load_default(120), anchor="mm")
    return torch.as_tensor(pil_to_tensor(image))


accelerator = Accelerator(cpu=True)  # leave cpu= out where there is a GPU; `accelerate launch` starts several processes
set_seed(11, device_specific=True)  # without device_specific, all processes would draw alike
network = nn.Sequential(nn.Conv2d(3, 5, 7, 4), nn.AdaptiveMaxPool2d(1), nn.Flatten())
data = TensorDataset(torch.stack([draw(letter) for letter in COLOURS]), torch.arange(5))
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
network, optimizer, loader = accelerator.prepare(network, optimizer, DataLoader(data, batch_size=5))
augmentations = {"RMG": RecursiveMosaic(r=2), "jigsaw": Jigsaw(n=4), "CutMix or MixUp": OneOf([CutMix(), MixUp(2.0)])}

figure = Figure(figsize=(7.5, 5.2), layout="constrained")
for row, (name, augment) in zip(figure.subplots(3, 5), augmentations.items(), strict=True):
    for images, labels in loader:
        mixed, targets = augment(images, labels)  # uint8, on this process's device
        loss = cross_entropy(network(mixed / 255), targets)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        print(f"{name}: loss {loss:.2f}")

        row[0].set_ylabel(name, fontsize=12)
        for place, image in zip(row, mixed.cpu(), strict=True):
            place.imshow(image.permute(1, 2, 0), interpolation="nearest")
            place.set(xticks=[], yticks=[], frame_on=False)
figure.savefig(path := "accelerate_loop.png", dpi=80, pil_kwargs={"optimize": True})
print(path)
