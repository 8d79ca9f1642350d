"""Overlays of Grad-CAM are written for photographs of any folder, none over another."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pmsi.cli.explain import open_explainer
from pmsi.deployment.answers import make_answer


def test_photographs_of_one_name_have_overlays_of_their_own(run: Path, tmp_path: Path) -> None:
    explain = open_explainer(run / "last.ckpt")
    answers = [make_answer(Path(where) / "a.jpg", np.array([1.0]), ("red",), 0.5) for where in ("x", "y")]
    pictures = [np.full((3, 32, 32), 90, np.uint8)] * 2
    drawn = explain(pictures, answers, tmp_path / "maps")
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["0000-a.png", "0001-a.png"]
    assert drawn[0].shape == (3, 32, 32)
    assert (drawn[0] != pictures[0]).any()
