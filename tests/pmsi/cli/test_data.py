"""`pmsi data check`: what is printed, and its exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pmsi.cli.commands import main


def test_a_sound_folder(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    assert main(["data", "check", str(photos), "--sheet", str(sheet)]) == 0
    said = capsys.readouterr().out
    assert "12 training, 6 test" in said
    assert "36 to 36 px, median 36" in said
    assert f"\nContact sheet: {sheet}\n" in said
    assert Image.open(sheet).size[0] > 36


def test_a_folder_with_a_broken_image(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "train/a/00.png").write_bytes(b"no image")
    assert main(["data", "check", str(photos)]) == 1
    said = capsys.readouterr().out
    assert "Unreadable (1):" in said
    assert "train/a/00.png" in said
    assert "\nWrong: " in said


def test_long_lists_are_cut(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for image in (photos / "train").rglob("*.png"):
        image.write_bytes((photos / "test/a/00.png").read_bytes())
    assert main(["data", "check", str(photos)]) == 1
    assert " more" in capsys.readouterr().out
