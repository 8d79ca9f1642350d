"""Layers that may stay in float32, and int8 files without what runtimes do not need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pmsi.deployment.convert import write_onnx
from pmsi.deployment.runtimes import open_model
from tests.helpers.small_export import make_blue

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def float32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    classifier, description, _ = make_blue()
    path = tmp_path_factory.mktemp("float32") / "a.onnx"
    write_onnx(classifier, description, path)
    return path


def test_first_and_last_layers_are_found_and_files_are_small(
    float32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pmsi.deployment import quantize

    _, _, checked = make_blue()
    first, last = (node.name for node in onnx.load(float32).graph.node if node.op_type in ("Conv", "Gemm"))
    assert quantize.list_candidates(onnx.load(float32)) == [(), (last,), (first,), (first, last)]

    calls: list[tuple[int, int]] = []
    assert quantize.quantize(float32, tmp_path / "b.onnx", checked.images, report=lambda *c: calls.append(c)) == []
    assert calls == [(1, 4)]  # the first choice was good enough
    model = onnx.load(tmp_path / "b.onnx")
    assert all(
        len(name) <= 2 or name in ("images", "probabilities") for node in model.graph.node for name in node.input
    )
    monkeypatch.setattr(quantize, "shrink", lambda _: None)
    quantize.quantize(float32, tmp_path / "c.onnx", checked.images)
    assert (tmp_path / "b.onnx").stat().st_size < (tmp_path / "c.onnx").stat().st_size
    small, large = (open_model(tmp_path / name).predict(checked.images) for name in ("b.onnx", "c.onnx"))
    assert np.array_equal(small, large)


def test_a_layer_stays_in_float_only_where_that_helps(
    float32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pmsi.deployment import quantize

    _, _, checked = make_blue()
    answers = iter([np.zeros(16), *(np.arange(16) < wrong for wrong in (4, 4, 1, 3))])
    monkeypatch.setattr(quantize, "_predict", lambda *_: next(answers))
    kept = quantize.quantize(float32, tmp_path / "b.onnx", checked.images)
    assert kept == list(quantize.list_candidates(onnx.load(float32))[2])
