"""Photographs are found by file, folder and pattern, and every kind of file is read or named in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pmsi.data.decoding import read_resized
from pmsi.deployment.photos import crop_center, fetch_photos, list_photos, read_photo
from tests.helpers.dataset_files import save_image
from tests.helpers.small_export import describe


def test_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("a.jpg", "b/c.PNG", "b/.hidden.png", "b/notes.txt", "__MACOSX/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in list_photos([str(tmp_path)])] == ["a.jpg", "c.PNG"]
    assert [path.name for path in list_photos([str(tmp_path / "*.jpg"), str(tmp_path / "a.jpg")])] == ["a.jpg"]
    assert [path.name for path in list_photos([str(tmp_path / "**" / "*.txt")])] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    for word, kind, message in (
        ("empty", ValueError, "holds no images"),
        ("*.tif", ValueError, "no file fits the pattern"),
        ("none.jpg", FileNotFoundError, "there is no file or folder"),
    ):
        with pytest.raises(kind, match=message):
            list_photos([str(tmp_path / word)])


def test_a_photograph_is_what_training_made_of_it(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)).save(tmp_path / "a.png")
    description = describe(side=36)
    stored = read_resized(tmp_path / "a.png", 36)
    assert np.abs(read_photo(tmp_path / "a.png", description).astype(int) - stored.numpy()).max() <= 1
    centre = crop_center(stored.permute(1, 2, 0).numpy(), 32)
    assert torch.equal(torch.from_numpy(centre), stored[:, 2:34, 2:34])


def test_every_kind_of_file_is_answered_or_named(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (9, 9), (level, 0, 0)) for level in (10, 200)]
    for name, image in {
        "alpha.png": Image.new("RGBA", (9, 9), (10, 20, 30, 128)),
        "grey.png": Image.new("L", (9, 9), 77),
        "cmyk.jpg": Image.new("CMYK", (9, 9), (9, 9, 9, 9)),
        "deep.png": Image.fromarray(np.full((9, 9), 20_000, np.uint16)),
    }.items():
        image.save(tmp_path / name)
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    save_image(tmp_path / "cut.jpg", size=(64, 64))
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:400])
    (tmp_path / "nothing.jpg").touch()
    (tmp_path / "words.jpg").write_text("words")
    found = {path.name: read for path, read in fetch_photos(sorted(tmp_path.iterdir()), describe(), workers=1)}
    bad = {name: str(read) for name, read in found.items() if isinstance(read, ValueError)}
    assert bad.keys() == {"cut.jpg", "nothing.jpg", "words.jpg"}
    assert "nothing.jpg (it is empty)" in bad["nothing.jpg"]
    assert all(line.startswith(f"cannot read {tmp_path}") and "\n" not in line for line in bad.values())
    for name, read in found.items():
        assert isinstance(read, ValueError) or read.shape == (3, 8, 8), name


def test_a_bomb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "huge.png", size=(64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow refuses twice as many
    with pytest.raises(ValueError, match=r"cannot read .*huge.png \(.*exceeds limit"):
        read_photo(tmp_path / "huge.png", describe())
