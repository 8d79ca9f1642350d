"""Int8 by calibration on training images (onnxruntime): layers stay in float where a search shows that they must."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx.numpy_helper
from numpy.typing import NDArray

from pmsi.deployment.runtimes import open_model

Int8Method = Literal["per-channel", "per-tensor"]
Images = NDArray[np.uint8]

_QUANTIZED = ("Conv", "Gemm", "Add", "Clip", "Relu")  # the rest has few numbers, and softmax and gates need float
_BATCH = 16
_CALIBRATION = 256  # images by which ranges are measured, and as many others by which the search judges
_ENOUGH = 99.0  # percent of the search's images that int8 and float32 call alike; then nothing more stays in float
_LEAST_GAIN = 0.5  # points of agreement that a layer in float must bring to stay so


def quantize(
    source: Path,
    target: Path,
    images: Images,
    method: Int8Method = "per-channel",
    report: Callable[[int, int], None] = lambda *_: None,
) -> list[str]:
    """Write an int8 copy of a float32 ONNX file.

    With "per-channel", the last layers, the first one, and both are tried in float32 too: the first choice stays under
    which at least 99 % of the images that were held back get the class that float32 gives them, else the best.

    Args:
        source: written by `pmsi.deployment.convert.write_onnx`.
        target: to write.
        images: training images, uint8 ``[N, 3, crop, crop]``; every other one measures ranges, the rest judges.
        method: of the weights' scales; activations have one scale per tensor.
        report: called with (done, total).

    Returns:
        Names of the layers that stay in float32.
    """
    chosen = images[:: max(1, len(images) // (2 * _CALIBRATION))][: 2 * _CALIBRATION]
    ranges = _measure_ranges(source, chosen[::2])
    if method == "per-tensor":
        _write(source, target, ranges, (), per_channel=False)
        return []
    judged = chosen[1::2] if len(chosen) > 1 else chosen
    wanted = _predict(source, judged)
    best, kept = -1.0, list[str]()
    candidates = list_candidates(onnx.load(source))
    for number, candidate in enumerate(candidates, 1):
        _write(source, target, ranges, candidate, per_channel=True)
        agreement = 100 * float((_predict(target, judged) == wanted).mean())
        report(number, len(candidates))
        if agreement >= best + _LEAST_GAIN:
            best, kept = agreement, list(candidate)
        if best >= _ENOUGH:
            break
    _write(source, target, ranges, kept, per_channel=True)
    return kept


def list_candidates(model: Any) -> list[tuple[str, ...]]:
    """List sets of layers to leave in float32: none, the last ones, the first one, and both.

    The last layers are those of which no other layer is made.
    """
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    followed = _list_followed(model, layers)
    first = (layers[0].name,)
    last = tuple(node.name for node in layers if node.name not in followed)
    return [(), last, first, (*first, *last)]


def _list_followed(model: Any, layers: Sequence[Any]) -> set[str]:
    """Names of the layers whose output reaches another layer."""
    makers = {output: node for node in model.graph.node for output in node.output}
    names = {node.name for node in layers}
    followed: set[str] = set()
    for layer in layers:
        waiting, seen = list(layer.input), set[str]()
        while waiting:
            node = makers.get(waiting.pop())
            if node is None or node.name in seen:
                continue
            seen.add(node.name)
            if node.name in names:
                followed.add(node.name)  # what comes before it was found from there
            else:
                waiting += node.input
    return followed


class _Reader:
    """Batches of calibration images, all of one size, as onnxruntime asks for them."""

    def __init__(self, images: Images) -> None:
        size = min(_BATCH, len(images))
        self.batches: Iterator[Images] = (
            images[row : row + size] for row in range(0, len(images) - len(images) % size, size)
        )

    def get_next(self) -> dict[str, Images] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def _measure_ranges(source: Path, images: Images) -> Any:
    """Least and greatest value of every activation."""
    from onnxruntime.quantization import create_calibrator

    with tempfile.TemporaryDirectory() as folder, _quiet():
        augmented = str(Path(folder) / "augmented.onnx")
        calibrator = create_calibrator(source, list(_QUANTIZED), augmented_model_path=augmented)
        calibrator.collect_data(_Reader(images))
        return calibrator.compute_data()


def _write(source: Path, target: Path, ranges: Any, kept: Sequence[str], *, per_channel: bool) -> None:
    from onnxruntime.quantization import QDQQuantizer, QuantType

    model = onnx.load(source)
    with _quiet():
        quantizer = QDQQuantizer(
            model,
            per_channel=per_channel,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=[],
            nodes_to_exclude=list(kept),
            op_types_to_quantize=list(_QUANTIZED),
            extra_options={},
        )
        quantizer.quantize_model()
    shrink(quantizer.model.model)
    onnx.save(quantizer.model.model, target)


def shrink(model: Any) -> None:
    """Leave out of an int8 model what runtimes do not need, a twentieth of the file; it computes the same bits.

    Those are zero points of 0, which are the default, the names of layers, and all but short names of tensors.
    """
    graph = model.graph
    values = {value.name: value for value in graph.initializer}
    for node in graph.node:
        symmetric = node.op_type == "DequantizeLinear" and len(node.input) == 3 and node.input[0] in values
        if symmetric and not onnx.numpy_helper.to_array(values[node.input[2]]).any():
            del node.input[2]
    used = {name for node in graph.node for name in node.input}
    kept = [value for value in graph.initializer if value.name in used]
    outer = {value.name for value in (*graph.input, *graph.output)}
    names: dict[str, str] = {"": ""}  # an input that is left out

    def shorten(name: str) -> str:
        return name if name in outer else names.setdefault(name, f"{len(names):x}")

    del graph.initializer[:]
    graph.initializer.extend(kept)
    for value in graph.initializer:
        value.name = shorten(value.name)
    for node in graph.node:
        node.input[:], node.output[:] = map(shorten, node.input), map(shorten, node.output)
        node.ClearField("name")
    graph.ClearField("value_info")


def _predict(path: Path, images: Images) -> NDArray[np.int64]:
    """Classes ``[N]`` that a file gives."""
    model = open_model(path)
    parts = [model.predict(images[row : row + _BATCH]).argmax(1) for row in range(0, len(images), _BATCH)]
    return np.concatenate(parts)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence onnxruntime's advice, which goes to the root logger."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
