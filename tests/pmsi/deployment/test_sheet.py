"""Contact sheets show every photograph, and long names do not run into each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pmsi.deployment.answers import make_answer
from pmsi.deployment.sheet import write_sheet


def test_a_sheet_shows_all_photographs(tmp_path: Path) -> None:
    answers = [
        make_answer(Path(f"{'long' * 20}{k}.jpg"), np.array([0.7, 0.3], np.float32), ("a" * 90, "b"), 0.5)
        for k in range(7)
    ]
    pictures = [np.full((3, 8, 8), 30 * k + 20, np.uint8) for k in range(7)]
    write_sheet(pictures, answers, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert all((sheet == 30 * k + 20).all(2).sum() >= 160 * 160 for k in range(7))
    assert (sheet[:, 6 * 170 :] == 255).all()  # nothing is drawn beyond the last picture
