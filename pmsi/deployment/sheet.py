"""Contact sheet of photographs with the answers about them (Pillow)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pmsi.deployment.answers import Answer
from pmsi.runtime.files import replace_file

_SIDE, _GAP, _LINE = 160, 10, 15  # px
_COLUMNS = 6


def write_sheet(pictures: Sequence[NDArray[np.uint8]], answers: Sequence[Answer], path: Path) -> None:
    """Write a PNG of all photographs, each above its file, its answer and the confidence.

    Args:
        pictures: uint8 ``[3, h, w]`` each, as the network saw them.
        answers: one for each.
        path: of the PNG.

    Raises:
        OSError: it could not be written; what was there stays.
    """
    columns = min(_COLUMNS, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    height = _SIDE + 3 * _LINE + _GAP
    sheet = Image.new("RGB", (columns * (_SIDE + _GAP) + _GAP, rows * height + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (picture, answer) in enumerate(zip(pictures, answers, strict=True)):
        left, top = _GAP + number % columns * (_SIDE + _GAP), _GAP + number // columns * height
        image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
        sheet.paste(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), (left, top))
        lines = (
            (answer.path.name, "#5f5f5f"),
            (answer.verdict, "black" if answer.sure else "#a33c00"),
            (f"{100 * answer.confidences[0]:.0f} % {answer.classes[0]}", "#5f5f5f"),
        )
        for place, (text, color) in enumerate(lines):
            at = (left, top + _SIDE + 2 + place * _LINE)
            draw.text(at, _fit(text, font), color, font)
    replace_file(path, lambda beside: sheet.save(beside, format="PNG"))


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Text that is not wider than a picture."""
    shown = text
    while font.getlength(shown) > _SIDE and len(text) > 1:
        text = text[:-1]
        shown = f"{text}.."
    return shown
