"""Our operations as nodes of a DALI pipeline: `python examples/dali_pipeline.py` writes dali_pipeline.png."""

import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from nvidia.dali import fn
from nvidia.dali.pipeline import pipeline_def
from PIL import Image, ImageDraw, ImageFont

from mosaicaug.dali import cutmix, jigsaw, mixup, recursive_mosaic, snapmix

LETTERS, SIDE = "DALI", 160  # px
TITLES = ("reader, decoder", "recursive_mosaic r=1", "recursive_mosaic r=3", "jigsaw n=4", "cutmix", "mixup", "snapmix")


@pipeline_def
def make_pipeline(files: list[str]) -> tuple[Any, ...]:
    """Images, what becomes of them, soft labels of CutMix and MixUp, and SnapMix's partners."""
    encoded, labels = fn.readers.file(files=files, labels=list(range(len(files))))
    images = fn.resize(fn.decoders.image(encoded), size=[SIDE, SIDE])
    tiles = [recursive_mosaic(images, r=1, seed=1), recursive_mosaic(images, r=3, seed=2), jigsaw(images, n=4, seed=3)]
    cut, cut_labels = cutmix(images, labels, num_classes=len(LETTERS), seed=1484)
    blend, blend_labels = mixup(images, labels, num_classes=len(LETTERS), seed=524)
    snap, pasted = snapmix(images, labels, seed=2054)
    return images, *tiles, cut, blend, snap, cut_labels, blend_labels, pasted.overlay


def draw(letter: str, hue: float) -> Image.Image:
    """A letter on a slope of colour, so that every tile shows where it comes from."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    colours = hsv_to_rgb(np.stack([hue + 0 * x, 0.2 + 0.5 * x, 1 - 0.3 * y], -1))
    image = Image.fromarray((255 * colours).astype(np.uint8))
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSerif-Bold.ttf"), 0.9 * SIDE)
    ImageDraw.Draw(image).text((SIDE / 2, SIDE / 2), letter, fill=(25, 20, 40), font=font, anchor="mm")
    return image


with tempfile.TemporaryDirectory() as folder:
    files = [f"{folder}/{letter}.jpg" for letter in LETTERS]
    for number, file in enumerate(files):
        draw(LETTERS[number], 0.05 + 0.25 * number).save(file, quality=95)
    pipeline = make_pipeline(files, batch_size=len(files), num_threads=1, device_id=None)
    *columns, cut, blend, partner = (np.array(output.as_cpu().as_array()) for output in pipeline.run())
figure = Figure(figsize=(14, 8.7), layout="constrained")
for (row, column), place in np.ndenumerate(figure.subplots(len(LETTERS), len(TITLES))):
    shares = zip(LETTERS, {4: cut, 5: blend}[column][row] if column in (4, 5) else [], strict=False)
    mixed = "   ".join(f"{letter} {share:.2f}" for letter, share in shares if share)
    own = LETTERS[row] if column < 6 else f"{LETTERS[row]} and {LETTERS[partner[row]]} by class activation"
    place.imshow(columns[column][row])
    place.set(xticks=[], yticks=[], title=TITLES[column] if row == 0 else "", xlabel=mixed or own)
figure.savefig(path := "dali_pipeline.png", dpi=66)
picture = Image.open(path).convert("RGB")
picture.quantize(palette=picture.quantize(160)).save(path, optimize=True)  # dithered, a third of the bytes
print(path)
