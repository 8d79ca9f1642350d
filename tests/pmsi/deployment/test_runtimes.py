"""Every exported file gives the checkpoint's answers through its own runtime, and ONNX needs no torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pmsi.cli.commands import main
from pmsi.deployment.photos import fetch_photos, list_photos
from pmsi.deployment.runtimes import is_installed, open_model

pytest.importorskip("onnxruntime", reason="onnxruntime is missing: pip install '.[export]'")
pytest.importorskip("onnxscript", reason="onnxscript is missing: pip install '.[export]'")
HIDDEN = ("torch", "torchvision", "tyro", "rich", "lightning_fabric", "matplotlib", "jinja2", "mosaicaug", "filelock")


@pytest.fixture(scope="module")
def exports(run: Path) -> Path:
    """Folder with the run exported to all that is installed."""
    out = run.parent / "out"
    forms = ["onnx", "onnx-int8", "pt2", "safetensors", *(["executorch"] if is_installed("executorch") else [])]
    words = ["export", str(run / "last.ckpt"), "--to", *forms, "--out", str(out), "--name", "net"]
    assert main([*words, "--accept-worse", "--cache", "None", "--device", "cpu", "--threads", "1"]) == 0
    return out


def ask(path: Path, photos: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    model = open_model(path)
    read = [found for _, found in fetch_photos(list_photos([str(photos)]), model.description)]
    assert not any(isinstance(one, ValueError) for one in read)
    return model.predict(np.stack(read))  # type: ignore[arg-type]


@pytest.mark.parametrize("file", ["net.onnx", "net.pt2", "net.safetensors", "net.pte", "net-int8.onnx"])
def test_each_runtime_answers_as_the_checkpoint_does(run: Path, exports: Path, file: str) -> None:
    if not is_installed("executorch") and file.endswith(".pte"):
        pytest.skip("executorch is missing: pip install '.[executorch]'")
    wanted = ask(run / "last.ckpt", run.parent / "photos" / "test")
    (path,) = (one for one in exports.iterdir() if one.name.replace("-worse", "") == file)
    found = ask(path, run.parent / "photos" / "test")
    assert found.shape == wanted.shape == (6, 3)
    assert np.abs(found.sum(1) - 1).max() < 1e-5
    assert np.abs(found - wanted).max() < (0.2 if "int8" in file else 1e-5)
    assert open_model(path).description.classes == ("blue", "green", "red")
    values = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert values["images"] == 6
    card = path.with_name(f"{path.name}.md").read_text()
    for words in (
        "# Model card",
        "## Against its checkpoint",
        "Licence: Not known",
        "must not be used",
        "## Robustness",
    ):
        assert words in card, words


def test_onnx_is_asked_without_torch(run: Path, exports: Path, tmp_path: Path) -> None:
    photos = str(run.parent / "photos" / "test" / "red")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({HIDDEN!r}));"
        f"sys.argv = ['pmsi', 'predict', {str(exports / 'net.onnx')!r}, {photos!r}, '--format', 'jsonl',"
        f" '--threshold', '0', '--sheet', {str(tmp_path / 'sheet.png')!r}];"
        "from pmsi.cli import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(one["file"]).name for one in answers] == ["0.png", "1.png"]
    wanted = ask(run / "last.ckpt", run.parent / "photos" / "test" / "red")
    best = [max(one["best"], key=lambda item: item["confidence"])["confidence"] for one in answers]
    assert np.abs(np.array(best) - wanted.max(1)).max() < 1e-5
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_what_cannot_be_opened_is_one_line(exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix in (".onnx", ".pt2", ".safetensors", ".ckpt"):
        (tmp_path / f"a{suffix}").write_bytes(b"words")
        with pytest.raises(ValueError, match=re.escape(f"a{suffix} is damaged")):
            open_model(tmp_path / f"a{suffix}")
    with pytest.raises(ValueError, match=r"a\.txt: a model ends in \.ckpt, \.onnx"):
        open_model(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        open_model(tmp_path / "none.onnx")
    monkeypatch.setattr("pmsi.deployment.runtimes.is_installed", lambda _: False)
    with pytest.raises(ValueError, match=r"net\.onnx needs onnxruntime, which is missing; pip install"):
        open_model(exports / "net.onnx")


def test_a_module_that_is_missing_is_not_installed() -> None:
    assert is_installed("numpy")
    assert not is_installed("no_such_module.at_all")
