"""Ours among Kornia's own in one container: `python examples/kornia_pipeline.py` writes kornia_pipeline.png."""

from pathlib import Path

import kornia.augmentation as K
import torch
from matplotlib import colors, figure, get_data_path
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.v2.functional import pil_to_tensor

from mosaicaug.kornia import AugmentationSequential, RandomCutMix, RandomMixUp, RandomRecursiveMosaic

COLOURS = {"A": "#e8a33d", "B": "#4f9d69", "C": "#4a7fb5", "D": "#c8553d", "E": "#8d6bb8", "F": "#3fa7a3"}


def main() -> None:
    """Letters, masks and classes through one pipeline; every mask and bar has the colours of the classes."""
    pipeline = AugmentationSequential(
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.2, 0.2, 0.2, 0.05),
        RandomRecursiveMosaic(r=2, p=0.5),
        RandomCutMix(num_classes=6, p=0.6),
        RandomMixUp(num_classes=6, p=0.6),
        K.Normalize(0.5, 0.25),
        data_keys=["input", "mask", "class"],
    )
    torch.manual_seed(289)
    images, masks = (torch.stack(each) for each in zip(*map(draw, COLOURS), strict=True))
    made, moved, soft = pipeline(images, masks, torch.arange(6))
    page, palette = figure.Figure((9, 6.8), layout="constrained"), colors.ListedColormap(["#f2f0ea", *COLOURS.values()])
    axes = page.subplots(6, 6, height_ratios=[1, 1, 0.1, 1, 1, 0.25])
    axes[2, 0].text(0, 0.3, ", ".join(type(step).__name__ for step in pipeline), in_layout=False)
    pixels = {0: images, 1: masks, 3: (made * 0.25 + 0.5).clamp(0, 1), 4: moved}
    for row, name in enumerate(["image", "mask", "", "image", "mask", "class"]):
        axes[row, 0].set_ylabel(name, fontsize=12)
        for column, place in enumerate(axes[row]):
            place.set(xticks=[], yticks=[], frame_on=False, xmargin=0)
            if row in pixels:
                place.imshow(pixels[row][column].movedim(0, -1).squeeze(-1), cmap=palette, vmin=0, vmax=6)
    for place, shares in zip(axes[5], soft, strict=True):
        for share, end, letter in zip(shares.tolist(), shares.cumsum(0).tolist(), COLOURS, strict=True):
            bar, text = place.barh(0, share, left=end - share, color=COLOURS[letter]), f"{letter} {share:.2f}"
            place.bar_label(bar, [text[: 6 if share > 0.3 else share > 0.1]], color="white", label_type="center")
    page.savefig(path := "kornia_pipeline.png", dpi=75)
    print(path)


def draw(letter: str, side: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """A letter ``[3, side, side]``, and the number of its class where it is, int64 ``[1, side, side]``."""
    font = ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSerif-Bold.ttf"), 0.9 * side)
    shape, slope = Image.new("L", (side, side)), Image.linear_gradient("L").resize((side, side))
    ImageDraw.Draw(shape).text((side / 2, side / 2), letter, fill=255, font=font, anchor="mm")
    ink, low, high = (Image.new("RGB", shape.size, name) for name in ("#221f33", COLOURS[letter], "#fff6e0"))
    image = Image.composite(ink, Image.composite(low, high, slope), shape)
    return pil_to_tensor(image) / 255, (pil_to_tensor(shape) > 127) * (1 + list(COLOURS).index(letter))


if __name__ == "__main__":
    main()
