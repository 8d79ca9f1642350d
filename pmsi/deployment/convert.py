"""Writers of exported files: ONNX, torch.export, ExecuTorch, and the tensors alone."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from pmsi.deployment.classifier import Classifier
from pmsi.deployment.description import KEY, Description
from pmsi.deployment.folding import export_folded

_MOST = 16  # images of a batch for which ExecuTorch sets memory aside


def write_onnx(classifier: Classifier, description: Description, path: Path) -> None:
    """Write ONNX in float32 with batch norm folded, for batches of any size; names and the like in its metadata."""
    import onnx
    from onnx.helper import set_model_props

    with _quiet():
        program = export_folded(classifier, _make_example(description))
        found = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=["images"], output_names=["probabilities"]
        )
        assert found is not None
        model = found.model_proto
    for node in model.graph.node:  # the lines of source that each came from, a fiftieth of the file
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for field in ("value_info", "metadata_props"):
        model.graph.ClearField(field)
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for value in model.graph.initializer:
        value.ClearField("metadata_props")
    model.producer_name, model.producer_version = KEY, description.written_by
    set_model_props(model, {KEY: description.to_json()})
    onnx.checker.check_model(model)
    onnx.save(model, path)


def describe_onnx(path: Path, description: Description) -> None:
    """Replace the description in the metadata of an ONNX file."""
    import onnx
    from onnx.helper import set_model_props

    model = onnx.load(path)
    del model.metadata_props[:]
    set_model_props(model, {KEY: description.to_json()})
    onnx.save(model, path)


def write_pt2(classifier: Classifier, description: Description, path: Path) -> None:
    """Write a program of torch.export with batch norm folded."""
    with _quiet():
        program = export_folded(classifier, _make_example(description))
        torch.export.save(program, path, extra_files={f"{KEY}.json": description.to_json()})


def write_executorch(classifier: Classifier, description: Description, path: Path) -> None:
    """Write a program for ExecuTorch, computed by XNNPACK.

    Raises:
        ValueError: ExecuTorch is not installed.
    """
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    except ImportError as error:
        raise ValueError(
            f"executorch: is missing, or does not fit this torch ({error}); pip install 'mosaicaug[executorch]'"
        ) from error
    text = torch.frombuffer(bytearray(description.to_json().encode()), dtype=torch.uint8)
    with _quiet():
        plain = copy.deepcopy(classifier).to(memory_format=torch.contiguous_format)  # XNNPACK's passes take no other
        program = export_folded(plain, _make_example(description), most=_MOST)
        lowered = to_edge_transform_and_lower(
            program, partitioner=[XnnpackPartitioner()], constant_methods={KEY: text}
        ).to_executorch()
    path.write_bytes(lowered.buffer)


def write_safetensors(classifier: Classifier, description: Description, path: Path) -> None:
    """Write the network's tensors, as they were trained; normalisation, temperature and softmax are in the metadata."""
    from safetensors.torch import save

    tensors = {name: value.contiguous() for name, value in classifier.network.state_dict().items()}
    path.write_bytes(save(tensors, metadata={KEY: description.to_json()}))


def _make_example(description: Description) -> Tensor:
    return torch.zeros(2, 3, description.crop, description.crop, dtype=torch.uint8)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress and advice of exporters: a file that does not compute right is refused anyway."""
    level = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(level)
