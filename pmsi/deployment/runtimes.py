"""Runtimes of exported networks: each file is asked by its own, and imports no other; ONNX needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pmsi.deployment.archives import check_archive
from pmsi.deployment.description import KEY, Description, name_damage, read_description
from pmsi.runtime.files import expand_home

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Bytes ``[B, 3, crop, crop]`` to probabilities ``[B, K]``."""


class Model(NamedTuple):
    """An opened network: its description, and the function that asks it."""

    description: Description
    predict: Predict


class _Runtime(NamedTuple):
    """How files with one suffix are opened, the module that it needs, and what installs that."""

    open: Callable[[Path, int | None], Model]
    module: str
    install: str


def open_model(path: Path, threads: int | None = None) -> Model:
    """Open a checkpoint or an exported file with its own runtime.

    Args:
        path: ``.ckpt``, ``.onnx``, ``.pt2``, ``.pte`` (ExecuTorch) or ``.safetensors``.
        threads: of the runtime, where it has its own; None leaves its choice.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no suffix of a model, no export of ours or one of another version, a damaged file, or a runtime that
            is not installed.
    """
    path = expand_home(path)
    runtime = _RUNTIMES.get(path.suffix)
    if runtime is None:
        raise ValueError(f"{path}: a model ends in {', '.join(_RUNTIMES)}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if not is_installed(runtime.module):
        raise ValueError(f"{path} needs {runtime.module}, which is missing; pip install {runtime.install}")
    return runtime.open(path, threads)


def is_installed(module: str) -> bool:
    """Test for a module that can be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # its parent is missing, or it is None among the loaded modules
        return False


def _open_onnx(path: Path, threads: int | None) -> Model:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has many kinds of its own
        raise name_damage(path, error) from error
    description = read_description(session.get_modelmeta().custom_metadata_map.get(KEY), str(path))

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(None, {"images": images})[0]
        return found

    return Model(description, predict)


def _open_pt2(path: Path, _: int | None) -> Model:
    import torch

    extra: dict[str, Any] = {f"{KEY}.json": ""}
    try:
        check_archive(path)
        program = torch.export.load(path, extra_files=extra)
    except Exception as error:
        raise name_damage(path, error) from error
    description = read_description(extra[f"{KEY}.json"] or None, str(path))
    return Model(description, _call_torch(program.module()))


def _open_executorch(path: Path, _: int | None) -> Model:
    import torch
    from executorch.runtime import Runtime

    try:
        program = Runtime.get().load_program(path)
        text = bytes(program.load_method(KEY).execute([])[0].numpy()) if KEY in program.method_names else None
        forward = program.load_method("forward")
    except Exception as error:
        raise name_damage(path, error) from error
    description = read_description(None if text is None else text.decode(), str(path))

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        parts = [forward.execute([torch.from_numpy(images[row : row + 1])])[0] for row in range(len(images))]
        return np.concatenate([part.numpy() for part in parts]).copy()

    return Model(description, predict)


def _open_plain(path: Path, _: int | None) -> Model:
    from pmsi.deployment.classifier import open_classifier

    classifier, description = open_classifier(path)
    return Model(description, _call_torch(classifier))


def _call_torch(module: Any) -> Predict:
    import torch

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = module(torch.from_numpy(images)).numpy()
        return found

    return predict


_RUNTIMES: Mapping[str, _Runtime] = {
    ".ckpt": _Runtime(_open_plain, "torch", "'mosaicaug[pmsi]'"),
    ".onnx": _Runtime(_open_onnx, "onnxruntime", "onnxruntime, or 'mosaicaug[export]'"),
    ".pt2": _Runtime(_open_pt2, "torch", "torch"),
    ".pte": _Runtime(_open_executorch, "executorch.runtime", "'mosaicaug[executorch]'"),
    ".safetensors": _Runtime(_open_plain, "safetensors", "'mosaicaug[export]'"),
}
