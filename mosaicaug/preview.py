"""`mosaicaug preview`: every augmentation on pictures of your own, as one contact sheet. It needs torch and Pillow."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mosaicaug.augmentation import Augmentation
from mosaicaug.targets import Targets
from mosaicaug.transforms import CutMix, Jigsaw, MixUp, RecursiveMosaic, SnapMix

_SIDE, _GAP, _LINE = 176, 8, 16  # px: of a picture, between two, of a line of text
_MOST = 24  # pictures of a sheet
# Decoders that a file may choose by its content; of the rest, EPS would hand it to Ghostscript, which runs programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "TGA", "AVIF")
_AUGMENTATIONS: dict[str, Augmentation] = {
    "RecursiveMosaic(r=1)": RecursiveMosaic(r=1),
    "RecursiveMosaic(r=3)": RecursiveMosaic(r=3),
    "Jigsaw(n=4)": Jigsaw(n=4),
    "CutMix()": CutMix(),
    "MixUp()": MixUp(),
    "SnapMix()": SnapMix(),
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the `mosaicaug` command.

    Args:
        words: after `mosaicaug`; None takes those of this process.

    Returns:
        The exit code: 0, or 2 for an error in what was asked, which is one line.
    """
    parser = argparse.ArgumentParser("mosaicaug", description="Augmentations that rearrange or mix images.")
    command = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "preview",
        help="every augmentation on your own pictures",
        description="Every augmentation on your own pictures.",
    )
    command.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a row of the sheet each")
    command.add_argument("--out", type=Path, default=Path("sheet.png"), help="the sheet, PNG (default: sheet.png)")
    command.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    asked = parser.parse_args(words)
    try:
        write_preview(asked.images, asked.out, asked.seed)
    except (ImportError, ValueError, OSError) as error:
        print(f"mosaicaug: {error}", file=sys.stderr)
        return 2
    print(asked.out)
    return 0


def write_preview(paths: Sequence[Path], out: Path, seed: int = 0) -> None:
    """Write a contact sheet: a row for each picture, as it is and under every augmentation.

    Partners of the mixing ones are the other pictures; one by itself is mixed with its mirror image. SnapMix takes what
    is in the middle for what matters.

    Args:
        paths: of the pictures, 1 to 24.
        out: PNG to write; it is there as a whole or not at all.
        seed: of the draws.

    Raises:
        ImportError: Pillow is missing.
        ValueError: too many pictures, or one cannot be read.
        OSError: the sheet cannot be written.
    """
    # 1. Pictures.
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ModuleNotFoundError as error:
        raise ImportError("preview: needs Pillow, which is missing; pip install pillow") from error
    if not 1 <= len(paths) <= _MOST:
        raise ValueError(f"preview: takes 1 to {_MOST} pictures, got {len(paths)}; give some, such as FOLDER/*01.jpg")
    images = torch.stack([_read(path) for path in paths])

    # 2. Rows of columns.
    columns = [("as it is", images, [""] * len(images))]
    columns += [(name, *_augment(augmentation, images, seed)) for name, augmentation in _AUGMENTATIONS.items()]

    # 3. The sheet.
    step, row = _SIDE + _GAP, _SIDE + _LINE + _GAP
    sheet = Image.new("RGB", (len(columns) * step + _GAP, len(images) * row + _LINE + 2 * _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (title, made, notes) in enumerate(columns):
        left = _GAP + number * step
        draw.text((left, _GAP), title, "black", font)
        for place, (image, note) in enumerate(zip(made, notes, strict=True)):
            top = 2 * _GAP + _LINE + place * row
            sheet.paste(_to_pil(image), (left, top))
            draw.text((left, top + _SIDE + 1), note, "#5f5f5f", font)
    beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    try:
        sheet.save(beside, format="PNG")
        beside.replace(out)
    finally:
        if beside.exists():
            beside.unlink()


def _augment(augmentation: Augmentation, images: Tensor, seed: int) -> tuple[Tensor, list[str]]:
    """Augmented images, and the weights of both labels where images were mixed."""
    count = len(images)
    batch = images if count > 1 else torch.cat([images, images.flip(3)])
    labels = torch.arange(len(batch))
    generator = torch.Generator().manual_seed(seed)
    slope = torch.exp(-(torch.linspace(-2, 2, 7) ** 2))
    maps = (slope[:, None] * slope).expand(len(batch), -1, -1)
    while True:
        made, targets = augmentation(batch, labels, maps=maps, generator=generator)
        if not isinstance(targets, Targets):
            return made[:count], [""] * count
        if (targets.labels_a != targets.labels_b).all():  # in training an image may be its own partner
            break
    pairs = zip(targets.weight_a.tolist(), targets.weight_b.tolist(), strict=True)
    notes = [f"own {own:.2f}, partner {other:.2f}" for own, other in pairs]
    return made[:count], notes[:count]


def _read(path: Path) -> Tensor:
    """Read the central square of a picture, upright: uint8 ``[3, side, side]``."""
    from PIL import Image, ImageOps

    try:
        Image.init()  # all of Pillow's decoders are known by name
        with Image.open(path, formats=[one for one in _FORMATS if one in Image.OPEN]) as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGB")
    except Exception as error:  # Pillow's decoders raise anything from SyntaxError to struct.error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise ValueError(f"preview: cannot read {path} ({reason})") from error
    square = ImageOps.fit(upright, (_SIDE, _SIDE))
    return torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).view(_SIDE, _SIDE, 3).permute(2, 0, 1)


def _to_pil(image: Tensor) -> Any:
    from PIL import Image

    pixels = image.permute(1, 2, 0).contiguous()
    return Image.frombytes("RGB", (_SIDE, _SIDE), bytes(pixels.flatten().tolist()))


if __name__ == "__main__":
    sys.exit(main())
