"""Exports are tested before they get their names: per-tensor int8 comes out refused, and nothing half stays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pmsi.deployment.export import check_installed, export_checkpoint
from pmsi.deployment.runtimes import Model, open_model
from tests.helpers.small_export import make_blue

pytest.importorskip("onnxruntime", reason="onnxruntime is missing: pip install '.[export]'")
pytest.importorskip("onnxscript", reason="onnxscript is missing: pip install '.[export]'")


def test_int8_of_one_scale_is_refused_and_of_one_per_channel_is_kept(tmp_path: Path) -> None:
    classifier, description, checked = make_blue()
    stem, images = tmp_path / "out" / "blue.v1", checked.images
    (ruined,) = export_checkpoint(classifier, description, ["onnx-int8"], stem, checked, images, int8="per-tensor")
    assert ruined.path is None
    assert ruined.check.accuracy == 50
    assert ruined.to_dict()["file"] is None
    assert list((tmp_path / "out").iterdir()) == []
    (kept,) = export_checkpoint(classifier, description, ["onnx-int8"], stem, checked, images)
    assert kept.path == tmp_path / "out" / "blue.v1-int8.onnx"
    assert kept.check.accuracy == 100
    assert open_model(kept.path).description.precision == "int8"
    values = json.loads((tmp_path / "out" / "blue.v1-int8.onnx.json").read_text())
    assert values == json.loads(json.dumps(kept.to_dict()))
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_file_that_is_worse_says_so_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, description, checked = make_blue()

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.tile(np.array([[0.75, 0.25]], np.float32), (len(images), 1))

    monkeypatch.setattr("pmsi.deployment.export.open_model", lambda *_: Model(description, answer))
    for accepted, name in ((False, None), (True, "a.v1-worse.safetensors")):
        (found,) = export_checkpoint(
            classifier, description, ["safetensors"], tmp_path / "a.v1", checked, None, accept_worse=accepted
        )
        assert found.check.worse
        assert (None if found.path is None else found.path.name) == name
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}.json"]


def test_an_export_that_is_stopped_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, description, checked = make_blue()

    def stop(what: str, *_: int) -> None:
        if what == "testing safetensors":
            raise KeyboardInterrupt

    monkeypatch.setattr(
        "pmsi.deployment.export.open_model", lambda *_: Model(description, lambda images: images.astype("float32"))
    )
    with pytest.raises(KeyboardInterrupt):
        export_checkpoint(classifier, description, ["safetensors"], tmp_path / "a", checked, None, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmsi.deployment.export.is_installed", lambda name: name == "onnx")
    for form, message in (
        ("onnx", r"--to onnx: needs onnxscript, onnxruntime; pip install 'mosaicaug\[export\]'"),
        ("executorch", r"--to executorch: needs executorch; pip install 'mosaicaug\[executorch\]'"),
    ):
        with pytest.raises(ValueError, match=message):
            check_installed(form)  # type: ignore[arg-type]
    check_installed("pt2")
    monkeypatch.undo()
    classifier, description, checked = make_blue(4)
    with pytest.raises(ValueError, match="needs training images to calibrate with"):
        export_checkpoint(classifier, description, ["onnx-int8"], Path("a"), checked, None)
