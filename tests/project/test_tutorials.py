"""Tutorials: the commands of the first are run one after another, on tiny pictures; the code of the second runs too.

The code of all pages is run by `test_docs.py`.
"""

from __future__ import annotations

import csv
import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mosaicaug.preview import main as preview
from pmsi.cli.commands import main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "own_photographs.md"
TINY = shlex.split("--resize 36 --crop 32 --feature-width 16 --hidden-width 8 --batch-size 4 --epochs 1")
MORE = {  # six test images are not enough to tell a worse file
    "train": [*TINY, "--device", "cpu", "--cache", "None"],
    "export": ["--device", "cpu", "--cache", "None", "--accept-worse"],
    "serve": ["--port", "0"],
}


def list_commands() -> list[list[str]]:
    """Commands of the first tutorial, in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in found if not language]
    return [words for line in "".join(blocks).splitlines() if (words := shlex.split(line, comments=True))]


def make_images(folder: Path) -> None:
    """Three classes of five photographs, one of them on its side."""
    for place, name in enumerate(("bunting", "catbird", "grosbeak")):
        (folder / name).mkdir(parents=True)
        for number in range(5):
            pixels = np.full((40, 48, 3), 60 + 10 * number, np.uint8)
            pixels[:, :, place] = 230
            exif = Image.Exif()
            exif[274] = 6 if number == 4 else 1
            Image.fromarray(pixels).save(folder / name / f"{number:04}.jpg", exif=exif)


@pytest.mark.usefixtures("small_backbone")
def test_a_folder_of_photographs_becomes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, extra in {
        "onnx": "export",
        "onnxruntime": "export",
        "onnxscript": "export",
        "uvicorn": "serve",
    }.items():
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is missing: pip install '.[{extra}]'")
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "MY_IMAGES")
    monkeypatch.setattr("pmsi.cli.serve.run_server", lambda *_: None, raising=True)
    done = []
    for program, *words in list_commands():
        if program == "mosaicaug":
            files = [
                str(file) for word in words for file in sorted(Path().glob(word)) or [Path(word)]
            ]  # as a shell does
            assert preview(files) == 0
        elif program == "pmsi":
            given = ["none" if word == "imagenet" else word for word in words]  # no download in a test
            assert main([*given, *MORE.get(words[0], [])]) == 0, words
        done.append(" ".join([program, words[0]]))
    steps = ["data", "train", "predict", "export", "predict", "serve"]
    assert [one for one in done if one.startswith("pmsi")] == [f"pmsi {step}" for step in steps]
    assert {"sheet.png", "preview.png", "answers.csv"} <= {path.name for path in tmp_path.iterdir()}
    assert {"report.html", "pmsi-folder.onnx", "pmsi-folder-int8.onnx"} <= {
        path.name for path in Path("birds").iterdir()
    }
    rows = list(csv.DictReader((tmp_path / "answers.csv").open()))
    assert len(rows) == 15
