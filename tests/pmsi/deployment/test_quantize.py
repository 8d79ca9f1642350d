"""Layers of int8 files that stay in float32 or go to four bits, and files without what runtimes do not need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pmsi.deployment.convert import write_onnx
from pmsi.deployment.description import Precisions
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


def test_layers_are_found(float32: Path) -> None:
    from pmsi.deployment.quantize import list_layers

    conv, linear = (node.name for node in onnx.load(float32).graph.node if node.op_type in ("Conv", "Gemm"))
    assert list_layers(onnx.load(float32)) == (((conv,),), (linear,), (conv, linear))


def test_files_have_what_is_needed_and_no_more(float32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pmsi.deployment import quantize

    images = make_blue()[2].images
    monkeypatch.setattr(quantize, "measure_divergence", lambda *_: 0.0)
    calls: list[tuple[int, int]] = []
    quantize.quantize(float32, tmp_path / "b.onnx", images, report=lambda *call: calls.append(call))
    assert calls == [*((done, 5) for done in range(1, 6)), (5, 5)]
    model = onnx.load(tmp_path / "b.onnx")
    onnx.checker.check_model(model)
    assert all(
        len(name) <= 4 or name in ("images", "probabilities") for node in model.graph.node for name in node.input
    )
    monkeypatch.setattr(quantize, "shrink", lambda _: None)
    quantize.quantize(float32, tmp_path / "c.onnx", images)
    assert (tmp_path / "b.onnx").stat().st_size < (tmp_path / "c.onnx").stat().st_size
    small, large = (open_model(tmp_path / name).predict(images) for name in ("b.onnx", "c.onnx"))
    assert np.array_equal(small, large)


@pytest.mark.parametrize(
    ("divergences", "float32_layers", "int4_layers"),
    [
        # int8 alone, then in float32: the convolution, the linear layer (beside what is kept); then in four bits: both
        ([1.0, 0.75, 0.75, 1.26, 1.25], "", "linear"),
        ([0.0, 0.0, 0.0, 0.1, 0.0], "", "linear"),
        ([1.0, 0.72, 0.55, 0.89], "conv", "linear"),
        ([1.0, 0.72, 0.55, 0.91], "conv", ""),
        ([1.0, 0.75, 0.72, 0.89], "linear", "conv"),
        ([1.0, 0.72, 0.5], "conv linear", ""),
    ],
)
def test_a_layer_leaves_int8_only_where_that_pays(
    float32: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    divergences: list[float],
    float32_layers: str,
    int4_layers: str,
) -> None:
    from pmsi.deployment import quantize

    conv, linear = quantize.list_layers(onnx.load(float32)).largest
    names = {"conv": conv, "linear": linear}
    found = iter(divergences)
    monkeypatch.setattr(quantize, "measure_divergence", lambda *_: next(found))
    precisions = quantize.quantize(float32, tmp_path / "b.onnx", make_blue()[2].images)
    assert next(found, None) is None
    assert precisions.float32 == tuple(names[one] for one in float32_layers.split())
    assert precisions.int4 == tuple(names[one] for one in int4_layers.split())
    model = onnx.load(tmp_path / "b.onnx")
    onnx.checker.check_model(model)
    kinds = [value.data_type for value in model.graph.initializer if len(value.dims) > 1]
    assert kinds.count(onnx.TensorProto.INT4) == len(precisions.int4)
    assert kinds.count(onnx.TensorProto.INT8) == 2 - len(precisions.int4) - len(precisions.float32)


def test_a_file_that_is_small_enough_keeps_eight_bits(
    float32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pmsi.deployment import quantize

    monkeypatch.setattr(quantize, "_SIZE", 10)
    monkeypatch.setattr(quantize, "measure_divergence", lambda *_: 0.0)
    assert quantize.quantize(float32, tmp_path / "b.onnx", make_blue()[2].images).int4 == ()


def test_judged_images_lie_between_two() -> None:
    from pmsi.deployment.quantize import mix_neighbours

    images = np.array([0, 255, 101], np.uint8).reshape(3, 1, 1, 1)
    assert mix_neighbours(images).ravel().tolist() == [50, 127, 178]


def test_divergence() -> None:
    from pmsi.deployment.quantize import measure_divergence

    wanted, found = np.array([[0.5, 0.5], [1, 0]], np.float32), np.array([[0.25, 0.75], [1, 0]], np.float32)
    assert measure_divergence(wanted, found) == pytest.approx((np.log(2) + np.log(2 / 3)) / 4, rel=1e-6)
    assert measure_divergence(wanted, wanted) == 0
    assert 40 < measure_divergence(wanted[1:], wanted[1:, ::-1]) < 100  # of a class with no probability left


def test_four_bits_are_turned_into_eight_on_loading(float32: Path, tmp_path: Path) -> None:
    from onnxruntime import InferenceSession, SessionOptions

    from pmsi.deployment import quantize

    images = make_blue()[2].images
    writer = quantize._Writer(float32, tmp_path / "b.onnx", quantize._measure_ranges(float32, images))
    _, linear = quantize.list_layers(onnx.load(float32)).largest
    writer.write(Precisions(int4=(linear,)))
    options = SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    InferenceSession(tmp_path / "b.onnx", options, providers=["CPUExecutionProvider"])
    kinds = {value.data_type for value in onnx.load(tmp_path / "loaded.onnx").graph.initializer}
    assert onnx.TensorProto.INT4 not in kinds
    assert onnx.TensorProto.INT8 in kinds
