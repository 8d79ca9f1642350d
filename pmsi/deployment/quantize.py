"""Int8 by calibration on training images (onnxruntime), with a few layers in float32 and a few in four bits."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from numpy.typing import NDArray

from pmsi.deployment.description import Precisions
from pmsi.deployment.runtimes import open_model

Int8Method = Literal["per-channel", "per-tensor"]
Images = NDArray[np.uint8]

_QUANTIZED = ("Conv", "Gemm", "Add", "Clip", "Relu")  # the rest has few numbers, and softmax and gates need float
_BATCH = 16
_CALIBRATION = 256  # images by which ranges are measured, and as many others of which the judged ones are made
_FIRST = (1, 2, 4, 8)  # numbers of first layers that are tried in float32
_GAIN = 0.75  # a layer stays in float32 where the divergence falls below this share of what it was
_LOSS = 1.25  # a layer goes to four bits where the divergence rises to no more than this share
_SIZE = 0.25  # of the float32 file; then no more layers go to four bits
_LARGEST = 4  # layers that are tried in four bits
_INT4_OPSET = 21


def quantize(
    source: Path,
    target: Path,
    images: Images,
    method: Int8Method = "per-channel",
    report: Callable[[int, int], None] = lambda *_: None,
) -> Precisions:
    """Write an int8 copy of a float32 ONNX file.

    "per-channel" searches. A choice is judged by how far its probabilities are from those of float32, on images that
    lie between two training images: a network that knows its training images by heart answers them alike whatever
    int8 does to it.

    1. The first 1, 2, 4 or 8 layers, then the last ones, stay in float32 where that brings the divergence down by a
       quarter.
    2. The weights of the largest layers go to four bits, where that raises the divergence by a quarter at most, until
       the file has a quarter of the size of ``source``.

    Args:
        source: written by `pmsi.deployment.convert.write_onnx`.
        target: to write.
        images: training images, uint8 ``[N, 3, crop, crop]``; every other one measures ranges, the rest judges.
        method: of the weights' scales; activations have one scale per tensor.
        report: called with (done, total).

    Returns:
        The layers that are not int8.
    """
    chosen = images[:: max(1, len(images) // (2 * _CALIBRATION))][: 2 * _CALIBRATION]
    writer = _Writer(source, target, _measure_ranges(source, chosen[::2]))
    if method == "per-tensor":
        writer.write(Precisions(), per_channel=False)
        return Precisions()
    judged = mix_neighbours(chosen[1::2] if len(chosen) > 1 else chosen)
    wanted = _predict(source, judged)
    layers = list_layers(onnx.load(source))
    done, total = 0, 2 + len(layers.firsts) + len(layers.largest)

    def measure(precisions: Precisions) -> float:
        nonlocal done
        done += 1
        report(done, total)
        writer.write(precisions)
        return measure_divergence(wanted, _predict(target, judged))

    # 1. Layers in float32: those next to the images, and those next to the answer. onnxruntime gives float weights
    #    between int8 layers one scale for all when it loads a file (WeightBiasQuantization), which ruins the network.
    kept = Precisions()
    best = measure(kept)
    for first in layers.firsts:
        if (divergence := measure(Precisions(first))) < _GAIN * best:
            kept, best = Precisions(first), divergence
    both = Precisions((*kept.float32, *layers.last))
    if (divergence := measure(both)) < _GAIN * best:
        kept, best = both, divergence

    # 2. Layers in four bits.
    size, enough = writer.write(kept), _SIZE * source.stat().st_size
    for name in layers.largest:
        if size <= enough:
            break
        packed = Precisions(kept.float32, (*kept.int4, name))
        if name not in kept.float32 and measure(packed) <= _LOSS * best:
            kept, size = packed, target.stat().st_size
    report(total, total)
    writer.write(kept)
    return kept


class Layers(NamedTuple):
    """Layers that quantisation may treat on their own, by the names of their nodes.

    Args:
        firsts: the first 1, 2, 4 and 8.
        last: those of which no other layer is made.
        largest: those with most weights, the largest first.
    """

    firsts: tuple[tuple[str, ...], ...]
    last: tuple[str, ...]
    largest: tuple[str, ...]


def list_layers(model: Any) -> Layers:
    """List the convolutions and linear layers of an ONNX model."""
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    followed = _list_followed(model, layers)
    sizes = {value.name: int(np.prod(value.dims)) for value in model.graph.initializer}
    by_size = sorted(layers, key=lambda node: -sizes[node.input[1]])
    return Layers(
        tuple(tuple(node.name for node in layers[:count]) for count in _FIRST if count < len(layers)),
        tuple(node.name for node in layers if node.name not in followed),
        tuple(node.name for node in by_size[:_LARGEST]),
    )


def mix_neighbours(images: Images) -> Images:
    """Mean of each image and the next one, uint8 ``[N, 3, H, W]``."""
    return ((images.astype(np.uint16) + np.roll(images, 1, 0)) // 2).astype(np.uint8)


def measure_divergence(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Mean Kullback-Leibler divergence of probabilities ``[N, K]`` from those that are wanted."""
    least = np.finfo(np.float32).tiny
    terms = wanted * (np.log(np.maximum(wanted, least)) - np.log(np.maximum(found, least)))
    return float(terms.sum(1, dtype=np.float64).mean())


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
    """Least and greatest value of every activation, means over batches: one odd image would coarsen all others."""
    from onnxruntime.quantization import create_calibrator

    with tempfile.TemporaryDirectory() as folder, _quiet():
        augmented = str(Path(folder) / "augmented.onnx")
        calibrator = create_calibrator(
            source, list(_QUANTIZED), augmented_model_path=augmented, extra_options={"moving_average": True}
        )
        calibrator.collect_data(_Reader(images))
        return calibrator.compute_data()


class _Writer:
    """Writer of int8 copies of one file.

    Args:
        source: float32 file.
        target: to write.
        ranges: of the activations.
    """

    def __init__(self, source: Path, target: Path, ranges: Any) -> None:
        self.source, self.target, self.ranges = source, target, ranges

    def write(self, precisions: Precisions, *, per_channel: bool = True) -> int:
        """Write the file, and say how many bytes it has."""
        from onnxruntime.quantization import QDQQuantizer, QuantType

        model = onnx.load(self.source)
        if precisions.int4:
            model.opset_import[0].version = max(_INT4_OPSET, model.opset_import[0].version)
        int4 = {"quant_type": QuantType.QInt4, "axis": 0, "symmetric": True}
        with _quiet():
            quantizer = QDQQuantizer(
                model,
                per_channel=per_channel,
                reduce_range=False,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=self.ranges,
                nodes_to_quantize=[],
                nodes_to_exclude=list(precisions.float32),
                op_types_to_quantize=list(_QUANTIZED),
                extra_options={
                    "QuantizeBias": False,  # a scale for each would double them; onnxruntime does it when it loads
                    "TensorQuantOverrides": {
                        node.input[1]: [int4] for node in model.graph.node if node.name in precisions.int4
                    },
                },
            )
            quantizer.quantize_model()
        quantizer.model.topological_sort()
        shrink(quantizer.model.model)
        unpack_int4(quantizer.model.model)
        onnx.save(quantizer.model.model, self.target)
        return self.target.stat().st_size


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


def unpack_int4(model: Any) -> None:
    """Let the runtime turn weights of four bits into int8 when it loads the file: there are no fast layers for four."""
    graph = model.graph
    for value in graph.initializer:
        if value.data_type == onnx.TensorProto.INT4:
            name = f"{value.name}_8"
            for node in graph.node:
                node.input[:] = [name if one == value.name else one for one in node.input]
            graph.node.insert(0, onnx.helper.make_node("Cast", [value.name], [name], to=onnx.TensorProto.INT8))


def _predict(path: Path, images: Images) -> NDArray[np.float32]:
    """Probabilities ``[N, K]`` that a file gives."""
    model = open_model(path)
    return np.concatenate([model.predict(images[row : row + _BATCH]) for row in range(0, len(images), _BATCH)])


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
