"""Uploads of every kind: what is no photograph is refused in one line, the others are read as training reads files."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import EpsImagePlugin, ExifTags, Image

from pmsi.deployment.serve import uploads
from pmsi.deployment.serve.uploads import crop_square, make_link, read_link, read_upload


def save(image: Image.Image, form: str, *rest: Image.Image, orientation: int = 1) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image.save(file, form, **({"save_all": True, "append_images": rest} if rest else {"exif": exif}))
    return file.getvalue()


def make_image() -> Image.Image:
    """Red above grey."""
    pixels = np.full((32, 24, 3), 90, np.uint8)
    pixels[:16] = (240, 0, 0)
    return Image.fromarray(pixels)


def is_red_above(pixels: NDArray[np.uint8]) -> bool:
    top, bottom = pixels[:14].reshape(-1, 3).mean(0), pixels[18:].reshape(-1, 3).mean(0)
    return bool(top[0] > 200 and top[1] < 40 and abs(bottom - 90).max() < 12)


def test_photographs_of_every_kind_are_read() -> None:
    image = make_image()
    clear = image.convert("RGBA")
    clear.putalpha(100)
    for content in (
        save(image, "JPEG"),
        save(image.convert("CMYK"), "JPEG"),
        save(clear, "PNG"),
        save(image, "WEBP"),
        save(image.rotate(180), "JPEG", orientation=3),
    ):
        upload = read_upload(content)
        assert is_red_above(upload.pixels)
        assert upload.remark == ""
    moving = read_upload(save(image, "GIF", image.rotate(180), image.rotate(90)))
    assert is_red_above(moving.pixels)
    assert moving.remark == "the first of 3 frames"
    deep = read_upload(save(Image.fromarray(np.full((8, 8), 40_000, np.uint16)), "PNG"))
    assert (deep.pixels == 40_000 >> 8).all()
    assert read_upload(save(Image.new("L", (5, 4), 7), "PNG")).pixels.shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"the file is empty \(0 bytes\)"),
        (b"words", "this is no image that can be read here"),
        (save(make_image(), "JPEG")[:500], "damaged or cut short"),
        (save(make_image(), "PNG")[:60], "damaged"),
        (save(Image.new("1", (9000, 8000)), "PNG"), "9000 x 8000 px, 72 megapixels; the limit is 64"),
        (save(Image.new("1", (20_000, 20_000)), "PNG"), "too large; the limit is 64 megapixels"),
    ],
    ids=["empty", "words", "cut", "header", "large", "bomb"],
)
def test_what_is_no_photograph_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_upload(content)


def test_a_program_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands PostScript to Ghostscript."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("a program was run"))
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    assert Image.open(io.BytesIO(content)).format == "EPS"
    with pytest.raises(ValueError, match="no image"):
        read_upload(content)


def test_files_over_the_limit_are_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="the file has 0 MB; the limit is 0 MB"):
        read_upload(bytes(1001))


def test_squares_are_the_middle_and_come_back_from_the_page() -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 200
    square = crop_square(pixels, 16)
    assert square.shape == (3, 16, 16)
    assert (square == 200).all()
    assert abs(read_link(make_link(square)).pixels.astype(int) - 200).max() <= 2
    for link in (None, 3, "http://example.org/a.jpg", "data:image/jpeg;base64,%%%", "data:image/jpeg;base64,AAAA"):
        with pytest.raises(ValueError, match=re.escape("the picture")):
            read_link(link)
