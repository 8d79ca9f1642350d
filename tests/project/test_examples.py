"""Every example runs as its first line says, is short, and its picture in docs/ is the one that it makes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
LONG = {"gallery", "dali_train"}  # README's picture, and a whole training script
NEEDS = {"kornia_pipeline": "kornia", "dali_pipeline": "nvidia.dali", "timm_train_step": "timm"}


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "dali_train"])  # tests/test_dali.py trains
def test_example_makes_its_picture(name: str, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS.get(name, "torch"))
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "docs").mkdir()
    command = [sys.executable, f"examples/{name}.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "docs" / f"{name}.png"
    assert str(made) in done.stdout
    new, kept = (np.asarray(Image.open(path).convert("RGB"), float) for path in (made, ROOT / "docs" / f"{name}.png"))
    assert new.shape == kept.shape
    # A grey level of the mean: room for another release of a font renderer, not for another draw.
    assert np.abs(new - kept).mean() < 1.0, f"docs/{name}.png is not what examples/{name}.py makes: make pictures"


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_short_and_say_how_to_run_them(name: str) -> None:
    lines = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8").splitlines()
    assert f"`python examples/{name}.py" in lines[0]
    assert len(lines) < 60 or name in LONG
