"""`pmsi predict` as it is typed: by tyro and by itself alike, and one clear line for each mistake."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from pmsi.cli import main as start
from pmsi.cli.commands import main
from pmsi.cli.options import parse
from pmsi.cli.predict import Bar, Predict, parse_predict, read_help
from tests.helpers.dataset_files import save_image


@pytest.mark.parametrize(
    "words",
    [
        "a.onnx b.jpg",
        "a.onnx b.jpg c --threshold 0.3 --format csv --out o.csv --sheet s.png --gradcam maps --workers 2",
    ],
)
def test_both_parsers_read_the_same(words: str) -> None:
    command = parse_predict(words.split())
    assert command == parse(["predict", *words.split()])
    assert command.images[0] == "b.jpg"


def test_every_setting_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_predict(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for text in read_help(Predict).values():
        assert text.split(".")[0].split(";")[0][:30] in shown


def test_the_command_starts_without_the_others(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = run.parent / "photos" / "test"
    (tmp_path / "bad.jpg").touch()
    words = ["predict", str(run / "last.ckpt"), str(photos / "red"), str(tmp_path / "bad.jpg"), "--threshold", "1"]
    monkeypatch.setattr("sys.argv", ["pmsi", *words])
    assert start() == 1  # one could not be read
    said = capsys.readouterr()
    assert said.err == f"pmsi: cannot read {tmp_path / 'bad.jpg'} (it is empty)\n"
    assert said.out.count("not sure") == 2
    assert main([*words[:3], "--format", "csv", "--out", str(tmp_path / "a.csv")]) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert [Path(row["file"]).name for row in rows] == ["0.png", "1.png"]
    assert (
        main([*words[:3], "--format", "jsonl", "--gradcam", str(tmp_path / "maps"), "--sheet", str(tmp_path / "s.png")])
        == 0
    )
    best = [json.loads(line)["best"] for line in capsys.readouterr().out.splitlines()]
    assert [len(one) for one in best] == [3, 3]
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["0000-0.png", "0001-1.png"]
    assert (tmp_path / "s.png").exists()


def test_mistakes_get_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, empty = tmp_path / "a.png", tmp_path / "empty.jpg"
    save_image(photo)
    empty.touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.onnx").write_text("words")
    model = str(run / "last.ckpt")
    for words, message in (
        ([model, str(tmp_path / "none.jpg")], "there is no file or folder"),
        ([model, str(tmp_path / "folder")], "holds no images"),
        ([model, str(empty)], r"cannot read .*empty.jpg \(it is empty\)\npmsi: none of 1 photographs could be read"),
        ([model, str(photo), "--threshold", "2"], "--threshold: must lie in 0..1, got 2.0"),
        ([str(tmp_path / "none.ckpt"), str(photo)], "there is no file"),
        ([str(photo), str(photo)], r"a\.png: a model ends in \.ckpt, \.onnx, \.pt2, \.pte, \.safetensors"),
        ([str(tmp_path / "a.onnx"), str(photo), "--gradcam", "x"], r"a\.onnx|--gradcam: needs gradients"),
        ([model, str(photo), "--out", str(photo / "a.csv")], "could not write"),
    ):
        for way in (main, start_with):
            assert way(["predict", *words]) == 2
            assert re.search(message, capsys.readouterr().err), words


def start_with(words: list[str]) -> int:
    """Start as the installed command does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["pmsi", *words])
        return start()


def test_a_bar_is_drawn_in_a_terminal_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Bar("photographs", 4) as bar:
        bar.advance(2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Bar("photographs", 4) as bar:
        bar.advance(2)
    assert "photographs ###############............... 2/4" in capsys.readouterr().err


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(_: Predict) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("pmsi.cli.predict.run_predict", stop)
    assert start_with(["predict", "a.onnx", "b.jpg"]) == 130
    assert capsys.readouterr().err == "\nStopped.\n"
