"""`mosaicaug preview`: every augmentation on the user's own pictures, upright, and one line for each mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, ExifTags, Image
from torch import Generator, Tensor

import mosaicaug
from mosaicaug import SnapMix, preview
from mosaicaug.preview import main

STEP, TOP = 184, 32  # px from one picture to the next, and above the first


def save(path: Path, *, orientation: int = 1) -> Path:
    """Red above green, stored as ``orientation`` says."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:20, :, 0], pixels[20:, :, 1] = 250, 250
    if orientation == 3:
        pixels = pixels[::-1, ::-1]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def test_a_sheet_shows_each_picture_under_each_augmentation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [save(tmp_path / "a.png"), save(tmp_path / "b.png", orientation=3)]
    out = tmp_path / "sheet.png"
    assert main(["preview", *map(str, paths), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    sheet = np.asarray(Image.open(out)).astype(int)
    assert sheet.shape == (2 * 200 + 32, 7 * STEP + 8, 3)
    for row in range(2):
        cells = [
            sheet[TOP + 200 * row : TOP + 200 * row + 176, 8 + STEP * column : 184 + STEP * column]
            for column in range(7)
        ]
        assert (cells[0][:80, :, 0] > 200).all(), "upright"
        assert (cells[0][96:, :, 1] > 200).all()
        for mosaic in cells[1:4]:  # the same pixels elsewhere
            assert not np.array_equal(mosaic, cells[0])
            assert np.array_equal(np.sort(mosaic.reshape(-1, 3), 0), np.sort(cells[0].reshape(-1, 3), 0))
    again = tmp_path / "again.png"
    assert main(["preview", *map(str, paths), "--out", str(again)]) == 0
    assert again.read_bytes() == out.read_bytes()
    assert main(["preview", *map(str, paths), "--out", str(again), "--seed", "1"]) == 0
    assert again.read_bytes() != out.read_bytes()


def test_one_picture_is_mixed_with_its_mirror() -> None:
    image = torch.zeros(1, 3, 176, 176, dtype=torch.uint8)
    image[..., :88] = 200
    mixed, notes = preview._augment(preview._AUGMENTATIONS["MixUp()"], image, 0)
    assert mixed.shape == image.shape
    assert notes[0].startswith("own 0.")


def test_mistakes_are_one_line_and_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, empty = save(tmp_path / "a.png"), tmp_path / "bad.jpg", tmp_path / "empty.png"
    bad.write_text("words")
    empty.touch()
    before = sorted(tmp_path.iterdir())
    for words, message in (
        ([str(bad)], "preview: cannot read"),
        ([str(empty)], "preview: cannot read"),
        ([str(tmp_path / "none.jpg")], "No such file or directory"),
        ([str(good)] * 25, "takes 1 to 24 pictures, got 25"),
        ([str(good), "--out", str(tmp_path / "nowhere" / "a.png")], "No such file or directory"),
    ):
        assert main(["preview", "--out", str(tmp_path / "sheet.png"), *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("mosaicaug: ")
        assert message in line
    assert sorted(tmp_path.iterdir()) == before


def test_a_program_that_is_called_a_picture_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("a program was run"))
    path = tmp_path / "a.jpg"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    assert Image.open(path).format == "EPS"
    assert main(["preview", str(path), "--out", str(tmp_path / "sheet.png")]) == 2
    assert "preview: cannot read" in capsys.readouterr().err


def test_torch_and_pillow_are_all_it_needs(tmp_path: Path) -> None:
    hidden = ("numpy", "torchvision", "matplotlib", "pmsi", "tyro", "rich")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden!r})); from mosaicaug.preview import main;"
        f"sys.exit(main(['preview', {str(save(tmp_path / 'a.png'))!r}, '--out', {str(tmp_path / 'b.png')!r}]))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b.png").exists()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "TGA", "AVIF"])
def test_pictures_of_every_kind_are_read(kind: str, tmp_path: Path) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    Image.new("RGB", (40, 30), (250, 0, 0)).save(tmp_path / "picture", format=kind)
    red, green, blue = preview._read(tmp_path / "picture").float().mean((1, 2)).tolist()
    assert red > 230
    assert max(green, blue) < 20


def test_titles_are_code_that_makes_the_augmentation() -> None:
    made = {title: repr(eval(title, vars(mosaicaug))) for title in preview._AUGMENTATIONS}
    assert made == {title: repr(augmentation) for title, augmentation in preview._AUGMENTATIONS.items()}


def test_partners_are_the_other_pictures_and_the_middle_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, Tensor]] = []

    def look(self: SnapMix, images: Tensor, labels: Tensor, *, maps: Tensor, generator: Generator) -> Any:
        seen.append((len(images), maps))
        return SnapMix.forward(self, images, labels, maps=maps, generator=generator)

    monkeypatch.setattr(SnapMix, "__call__", look)
    for count in (1, 2, 3):
        preview._augment(SnapMix(), torch.rand(count, 3, 32, 32), 0)
    assert {batch for batch, _ in seen} == {2, 3}
    for _, maps in seen:
        assert torch.equal(maps, maps.transpose(1, 2))
        assert (maps.flatten(1).argmax(1) == 3 * 7 + 3).all()
        assert (maps[:, 0, 0] < maps[:, 0, 3]).all()


def test_weights_stand_below_their_picture(tmp_path: Path) -> None:
    paths = [save(tmp_path / "a.png"), save(tmp_path / "b.png")]
    preview.write_preview(paths, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    for row in range(2):
        below = sheet[TOP + 200 * row + 177 : TOP + 200 * row + 192]
        dark = [(below[:, 8 + STEP * column : 184 + STEP * column] < 160).any() for column in range(7)]
        assert dark == [False] * 4 + [True] * 3
    assert main(["preview", *map(str, paths), "--out", str(tmp_path / "again.png")]) == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "sheet.png").read_bytes()


def test_help_says_what_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["preview", "--help"]):
        with pytest.raises(SystemExit):
            main(words)
        out = " ".join(capsys.readouterr().out.split())
        assert "very augmentation on your own pictures" in out
    for part in ("a row of the sheet each", "(default: sheet.png)", "of the draws (default: 0)"):
        assert part in out
