"""Model cards hold what a reader must know, with or without what an older run lacks."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pmsi.report.card import write_card, write_export_card
from tests.helpers.small_export import describe
from tests.helpers.small_study import make_study

HEADINGS = ("Data", "Network and training", "Accuracy", "Robustness", "Cost", "What it must not be used for", "Classes")


def test_a_card_of_a_run_has_all_sections(tmp_path: Path) -> None:
    study = make_study("run", rmg=[(75, 75)])
    write_card(study, tmp_path / "a.md")
    text = (tmp_path / "a.md").read_text(encoding="utf-8")
    assert text.startswith("# Model card: pmsi on cub\n")
    for heading in HEADINGS:
        assert f"\n## {heading}\n" in text, heading
    assert "research and teaching that is not commercial" in text
    assert "Not measured on corrupted images." in text
    assert "wren, tern, gull, <auk>." in text
    measured = {"clean": {"concat": 75.0, "mix": 75.0}, "gaussian_noise": {"concat": 70.0, "mix": 71.5}}
    more = {"robustness": {"pmsi, rmg": [measured]}, "cost": {"parameters": 3_600_000, "macs": 150_000_000}}
    write_card(replace(study, results={**study.results, **more}), tmp_path / "b.md")
    text = (tmp_path / "b.md").read_text(encoding="utf-8")
    assert "| Gaussian noise, clipped | 70.0 | 71.5 |" in text
    assert "3.60 million parameters; 150 million multiply-accumulates" in text


@pytest.mark.parametrize("known", [True, False])
def test_a_card_of_an_export_says_what_the_file_takes(tmp_path: Path, known: bool) -> None:
    check = {
        "agreement": 100.0,
        "largest_difference": 0.0,
        "accuracy": 75.0,
        "checkpoint_accuracy": 75.0,
        "milliseconds": 1.0,
        "checkpoint_milliseconds": 9.0,
        "difference": 0.0,
        "interval": [0.0, 0.0],
        "confidence": 0.95,
        "p_value": 1.0,
        "verdict": "not told apart",
        "images": 400,
    }
    values = {"file": "a.onnx", "format": "onnx", "bytes": 100, "in_float32": [], "in_int4": [], **check}
    study = make_study("run", rmg=[(75, 75)]) if known else None
    write_export_card({**values, "description": asdict(describe())}, tmp_path / "a.md", study)
    text = (tmp_path / "a.md").read_text(encoding="utf-8")
    assert "uint8 [B, 3, 8, 8] in RGB" in text
    assert "## Against its checkpoint" in text
    assert ("## Accuracy" in text) == known
    assert "must not be used for" in text
