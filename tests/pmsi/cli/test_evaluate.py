"""`pmsi evaluate` writes a page with all that a practitioner looks for."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from pmsi.cli.commands import main

TINY = "--resize 36 --crop 32 --feature-width 16 --hidden-width 8 --batch-size 4 --epochs 1 --device cpu --cache None"


@pytest.mark.usefixtures("small_backbone")
def test_pages_of_a_run_and_of_a_test_show_its_answers(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", "--data", "folder", "--root", str(photos), "--run", str(run), *TINY.split()]) == 0
    assert main(["evaluate", str(run / "last.ckpt"), "--cache", "None", "--device", "cpu"]) == 0
    end = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert end["page"] == str(run / "evaluate-folder.html")
    for page, table in (("report.html", "confusions.csv"), ("evaluate-folder.html", "evaluate-folder-confusions.csv")):
        text = (run / page).read_text()
        for words in ("All classes", "one of the best 3 is right", "with temperature", "Worst errors", "taken for"):
            assert words in text, (page, words)
        rows = list(csv.reader((run / table).open()))
        assert rows[0] == ["class", "a", "b", "c"]
        assert sum(int(cell) for row in rows[1:] for cell in row[1:]) == 6
    kept = json.loads((run / "predictions.json").read_text())
    assert len(kept["top"]) == len(kept["probabilities"]) == 6
    assert all(sum(row) == pytest.approx(1, abs=1e-5) for row in kept["probabilities"])
