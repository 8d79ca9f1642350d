"""Embedded data set: images of twelve typefaces, rendered from the fonts that matplotlib ships."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pmsi.data.decoding import Progress

# Text faces that share skeletons: telling them apart takes stroke weight and contrast, serifs, slant and widths.
TYPEFACES = {
    "DejaVu Sans": "DejaVuSans.ttf",
    "DejaVu Sans Bold": "DejaVuSans-Bold.ttf",
    "DejaVu Sans Mono": "DejaVuSansMono.ttf",
    "DejaVu Sans Mono Bold": "DejaVuSansMono-Bold.ttf",
    "DejaVu Serif": "DejaVuSerif.ttf",
    "DejaVu Serif Bold": "DejaVuSerif-Bold.ttf",
    "DejaVu Serif Italic": "DejaVuSerif-Italic.ttf",
    "STIX General": "STIXGeneral.ttf",
    "STIX General Bold": "STIXGeneralBol.ttf",
    "Computer Modern Roman": "cmr10.ttf",
    "Computer Modern Sans": "cmss10.ttf",
    "Computer Modern Typewriter": "cmtt10.ttf",
}

TRAIN_PER_CLASS = 60  # training images of each that the data set has
_SPLITS = ("train", "test")
_LINES = 3
_RULER = 100.0  # em, px, at which words are measured
_LEADING = 1.15  # em from line to line
# Pale paper and dark ink: the wider their range, the more epochs go into learning that colour says nothing.
_INK = (0, 48)  # range of each channel
_PAPER = (224, 256)
_VOCABULARY = """
    acorn amber apple april azure basin beach birch blaze bloom brave bread brick bridge bright brown cabin candle
    canyon cedar chalk cherry civic cliff clover coast copper coral crane crisp dawn delta dozen dune eagle earth
    ebony echo egret ember equal fable falcon felt fern field finch fjord flame flint fresh frost galaxy garden
    gentle globe grape hawk hazel heron honey hymn ideal igloo index ivory jasper jazz jelly jewel jolly judge
    juice kayak kelp king kiwi knoll knot lake lark lemon light lilac linen lunar lyric magpie maple marble meadow
    melody mixer moon mosaic myth navy nebula night noble north novel oasis ocean olive onyx opal orbit otter
    oxygen paper pebble pixel plover poem prism puzzle quail quartz quest quick quiet quill quilt radio rain raven
    reef rhythm river robin ruby sequel shadow silver sketch spruce stork sugar swift table tango thyme tiger
    topaz tulip unity upper urban valley velvet violet vivid vowel walnut water whale wheat willow winter wren
    xenon yacht yellow yoga young zebra zenith zephyr zigzag zone
"""
_WORDS = _VOCABULARY.split()


@dataclass(frozen=True)
class Specimen:
    """Text of one image: three words, one per line, with their setting.

    Lengths are shares of the image's side, so that a specimen looks alike at any resolution.

    Args:
        words: of 4 to 6 letters, all in lower, title or upper case.
        width: of the longest word.
        rotation: degrees, anticlockwise.
        slant: horizontal shift per unit of height, positive leans to the right.
        centre: of the text, (y, x) from the top left corner.
        ink, paper: RGB, 0..255; every channel of the paper is lighter than every channel of the ink by 177 or more.
    """

    words: tuple[str, ...]
    width: float
    rotation: float
    slant: float
    centre: tuple[float, float]
    ink: tuple[int, ...]
    paper: tuple[int, ...]


class Rendered(NamedTuple):
    """Images and labels of both splits: uint8 ``[N, 3, R, R]`` and int64 ``[N]``, class after class."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def render_typefaces(
    resize: int,
    *,
    train_per_class: int = TRAIN_PER_CLASS,
    test_per_class: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> Rendered:
    """Render the whole data set; labels index ``tuple(TYPEFACES)``.

    Each image is a function of (seed, split, class, number) alone, so neither the counts nor the order matter.

    Args:
        resize: side R of the images, px.
        train_per_class, test_per_class: images of each typeface.
        seed: 0 or more.
        progress: called with (what, done, total) after every image.

    Raises:
        ValueError: a count, the size or the seed is out of range.
        FileNotFoundError: matplotlib's fonts are not where it says.
    """
    counts = {"resize": resize, "train_per_class": train_per_class, "test_per_class": test_per_class}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"typefaces: {name} must be at least 1, got {count}")
    return Rendered(
        _render_split("train", train_per_class, resize, seed, progress),
        _render_split("test", test_per_class, resize, seed, progress),
    )


def draw_specimen(typeface: str, split: Literal["train", "test"], number: int, *, seed: int = 0) -> Specimen:
    """Draw the text of image ``number`` of a typeface.

    >>> draw_specimen("DejaVu Sans", "train", 0) == draw_specimen("DejaVu Sans", "train", 0)
    True
    """
    if seed < 0:
        raise ValueError(f"typefaces: seed must be 0 or more, got {seed}")
    key = (_SPLITS.index(split), list(TYPEFACES).index(typeface), number)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))
    width = generator.uniform(0.65, 0.95)
    return Specimen(
        words=_draw_words(generator),
        width=width,
        rotation=generator.uniform(-5, 5),
        slant=generator.uniform(-0.04, 0.04),
        centre=(generator.uniform(0.45, 0.55), 0.5 + generator.uniform(-0.3, 0.3) * (1 - width)),
        ink=tuple(generator.integers(*_INK, size=3).tolist()),
        paper=tuple(generator.integers(*_PAPER, size=3).tolist()),
    )


def render_specimen(typeface: str, specimen: Specimen, resize: int) -> Tensor:
    """Render one image, uint8 ``[3, R, R]``, at twice the size, then average it down.

    Raises:
        FileNotFoundError: matplotlib's fonts are not where it says.
    """
    side = 2 * resize
    longest = max(_load_ruler(typeface).getlength(word) for word in specimen.words) / _RULER
    em = min(specimen.width * side / longest, 0.26 * side)  # px
    font = _load_font(typeface, em)
    upright = Image.new("L", (side, side))
    pen = ImageDraw.Draw(upright)
    for line, word in enumerate(specimen.words):
        y = resize + (line - (len(specimen.words) - 1) / 2) * _LEADING * em
        pen.text((resize, y), word, fill=255, font=font, anchor="mm")
    placed = upright.transform(
        (side, side), Image.Transform.AFFINE, _affine(specimen, side), resample=Image.Resampling.BICUBIC
    )
    coverage = np.asarray(placed.reduce(2), np.float32)[None] / 255  # [1, R, R]
    ink, paper = (np.array(colour, np.float32)[:, None, None] for colour in (specimen.ink, specimen.paper))
    return torch.from_numpy(np.rint(paper + (ink - paper) * coverage).astype(np.uint8))


def _render_split(
    split: Literal["train", "test"],
    per_class: int,
    resize: int,
    seed: int,
    progress: Progress | None,
) -> tuple[Tensor, Tensor]:
    labels = torch.arange(len(TYPEFACES)).repeat_interleave(per_class)
    images = torch.empty(len(labels), 3, resize, resize, dtype=torch.uint8)
    for label, typeface in enumerate(TYPEFACES):
        for number in range(per_class):
            row = label * per_class + number
            images[row] = render_specimen(typeface, draw_specimen(typeface, split, number, seed=seed), resize)
            if progress is not None:
                progress(f"typefaces: rendering {split} images", row + 1, len(images))
    return images, labels


def _draw_words(generator: np.random.Generator) -> tuple[str, ...]:
    words = generator.choice(_WORDS, _LINES, replace=False).tolist()
    change = (str.lower, str.capitalize, str.upper)[generator.integers(3)]
    return tuple(map(change, words))


def _affine(specimen: Specimen, side: int) -> tuple[float, ...]:
    """Pillow's six affine coefficients, from output pixels to the upright picture."""
    cos, sin = math.cos(math.radians(specimen.rotation)), math.sin(math.radians(specimen.rotation))
    y, x = (share * side for share in specimen.centre)
    xx, xy = cos + specimen.slant * sin, specimen.slant * cos - sin
    return (xx, xy, side / 2 - xx * x - xy * y, sin, cos, side / 2 - sin * x - cos * y)


@lru_cache(maxsize=len(TYPEFACES))
def _load_ruler(typeface: str) -> ImageFont.FreeTypeFont:
    return _load_font(typeface, _RULER)


def _load_font(typeface: str, em: float) -> ImageFont.FreeTypeFont:
    # The basic layout, because the other one depends on how Pillow was built.
    return ImageFont.truetype(_font_path(typeface), em, layout_engine=ImageFont.Layout.BASIC)


def _font_path(typeface: str) -> Path:
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", TYPEFACES[typeface])
    if not path.is_file():
        raise FileNotFoundError(f"typefaces: matplotlib's font {path} is missing; reinstall matplotlib")
    return path
