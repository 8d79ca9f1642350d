"""`pmsi export` as it is typed: one clear line for each mistake, nothing half written, and refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pmsi.cli.commands import main
from pmsi.deployment.check import Check
from pmsi.deployment.description import Precisions
from pmsi.deployment.export import Exported
from pmsi.evaluation.statistics import Comparison
from tests.helpers.small_export import describe

KEPT = ["--cache", "None", "--device", "cpu", "--threads", "1"]


def test_mistakes_get_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "other" / "wren").mkdir(parents=True)
    checkpoint = str(run / "last.ckpt")
    for words, message in (
        ([str(tmp_path / "none.ckpt")], "there is no file"),
        ([str(tmp_path / "file")], "is damaged, or no file of tensors"),
        ([checkpoint, "--out", str(tmp_path / "file")], "--out: .*file is a file; name a folder"),
        ([checkpoint, "--out", str(tmp_path / "file" / "below")], "could not write|Not a directory|--out: "),
        (
            [checkpoint, "--check-images", str(tmp_path / "other")],
            "has 'wren', which is none of the network's 3 classes",
        ),
        ([checkpoint, "--root", str(tmp_path / "nowhere")], "there is no folder"),
        ([checkpoint, "--data", "typefaces"], "knows 3 classes, typefaces has 12|takes no --root"),
        ([checkpoint, "--to"], "--to: name one format or more"),
    ):
        assert (
            main(["export", *words, "--to", "safetensors", *KEPT] if "--to" not in words else ["export", *words, *KEPT])
            == 2
        )
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(message, line), line
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".safetensors"]


def test_the_last_line_names_files_and_refusals(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["export", str(run / "last.ckpt"), "--to", "safetensors", "--out", str(tmp_path), *KEPT]
    assert main([*words, "--check-images", str(run.parent / "photos" / "test")]) == 0
    said = capsys.readouterr().out
    file = tmp_path / "pmsi-folder.safetensors"
    assert json.loads(said.splitlines()[-1]) == {"files": [str(file)], "refused": []}
    assert "6 images of test" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        file.name,
        f"{file.name}.json",
        f"{file.name}.md",
    ]
    assert "Concat" in file.with_name(f"{file.name}.md").read_text()  # the run's own results

    def refuse(*_: object, **__: object) -> list[Exported]:
        compared = Comparison(-50.0, (-60.0, -40.0), 0.95, 1e-9, 32, (1, 1))
        check = Check(32, 50.0, 0.9, 50.0, 100.0, compared, 1.0, 1.0)
        return [Exported("onnx-int8", None, 1, check, Precisions(), describe())]

    monkeypatch.setattr("pmsi.cli.export.export_checkpoint", refuse)
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "Refused: onnx-int8 is worse than the checkpoint, -50.0 points; nothing was kept." in said
    assert json.loads(said.splitlines()[-1])["refused"] == ["onnx-int8"]
