"""Written ONNX holds names and nothing of the machine that wrote it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pmsi.deployment.convert import write_executorch, write_onnx
from pmsi.deployment.runtimes import open_model
from tests.helpers.small_export import make_blue


def test_onnx_takes_any_batch_and_holds_no_paths(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    classifier, description, checked = make_blue()
    write_onnx(classifier, description, tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 0
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert str(Path(__file__).parents[3]).encode() not in (tmp_path / "a.onnx").read_bytes()
    opened = open_model(tmp_path / "a.onnx")
    assert opened.description == description
    found = [opened.predict(checked.images[:count]) for count in (1, 5)]
    assert np.abs(found[0] - found[1][:1]).max() < 1e-6


def test_executorch_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "executorch", None)
    classifier, description, _ = make_blue()
    with pytest.raises(ValueError, match=r"pip install 'mosaicaug\[executorch\]'"):
        write_executorch(classifier, description, tmp_path / "a.pte")
