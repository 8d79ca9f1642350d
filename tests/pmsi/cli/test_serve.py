"""`pmsi serve`: its port, its example images, and one clear line for each mistake."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from pmsi.cli.commands import main
from pmsi.cli.options import Serve, parse
from pmsi.cli.serve import list_examples, open_port
from pmsi.deployment.runtimes import open_model
from tests.helpers.dataset_files import save_image
from tests.helpers.small_export import describe


def test_the_port_is_this_machines_alone() -> None:
    with open_port(0) as taken:
        host, port = taken.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(ValueError, match=f"--port: {port} cannot be used .*; name another, or 0 for a free one"):
            open_port(port)
    with pytest.raises(ValueError, match=r"must lie in 0\.\.65535, got 70000"):
        open_port(70_000)


def test_examples_are_the_images_of_the_run(run: Path, tmp_path: Path) -> None:
    description = open_model(run / "last.ckpt").description
    found = list_examples(Serve(run / "last.ckpt"), description)
    assert {name: len(readers) for name, readers in found.items()} == dict.fromkeys(("blue", "green", "red"), 3)
    assert found["red"][0]()[0, 0].argmax() == 0
    for name in ("red", "other"):
        save_image(tmp_path / "mine" / name / "a.png", (1, 2, 3))
        save_image(tmp_path / "mine" / name / "b.png", (1, 2, 3))
    mine = list_examples(Serve(run / "last.ckpt", examples=tmp_path / "mine"), description)
    assert mine["red"][0]()[0, 0].tolist() == [1, 2, 3]
    shutil.copy(run / "last.ckpt", tmp_path)
    with pytest.raises(ValueError, match=r"nothing beside last\.ckpt says where those of folder are"):
        list_examples(Serve(tmp_path / "last.ckpt"), description)
    with pytest.raises(ValueError, match="has no folder of a class, such as dark"):
        list_examples(Serve(run / "last.ckpt", examples=run.parent / "photos"), describe())


def test_examples_of_typefaces_are_rendered() -> None:
    command, description = Serve(Path("a.onnx")), describe()
    object.__setattr__(description, "data", "typefaces")
    found = list_examples(command, description)
    assert len(found) == 12
    assert found["DejaVu Sans"][1]().shape == (128, 128, 3)


def test_mistakes_get_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(run / "last.ckpt")
    (tmp_path / "bad.onnx").write_text("words")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", model]) == 2
    assert "pip install 'mosaicaug[serve]'" in capsys.readouterr().err
    monkeypatch.undo()
    pytest.importorskip("uvicorn", reason="uvicorn is missing: pip install '.[serve]'")
    with open_port(0) as taken:
        for words, message in (
            ([model, "--threshold", "2"], "--threshold: must lie in 0..1"),
            ([model, "--port", str(taken.getsockname()[1])], "cannot be used"),
            ([str(tmp_path / "none.ckpt")], "there is no file"),
            ([str(tmp_path / "a.png")], "a model ends in"),
            ([str(tmp_path / "bad.onnx")], "damaged"),
            ([model, "--examples", str(tmp_path / "nowhere")], "there is no folder"),
        ):
            port = [] if "--port" in words else ["--port", "0"]
            assert main(["serve", *words, *port]) == 2, words
            assert message in capsys.readouterr().err.replace("\n", " ")


def test_pages_are_served_until_they_are_stopped(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is missing: pip install '.[serve]'")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", stop)
    command = parse(["serve", str(run / "last.ckpt"), "--port", "0"])
    assert isinstance(command, Serve)
    assert main(["serve", str(run / "last.ckpt"), "--port", "0"]) == 130
    said = " ".join(capsys.readouterr().out.split())
    assert "Serving last.ckpt at http://127.0.0.1:" in said
    assert "Stopped." in said
