"""Export of a checkpoint: each file is written aside, tested through its own runtime, and then gets its name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from pmsi.deployment.check import Check, CheckImages, Images, check_file, predict_all
from pmsi.deployment.classifier import Classifier
from pmsi.deployment.description import Description, Precisions
from pmsi.deployment.runtimes import is_installed, open_model
from pmsi.runtime.files import PART, write_json

ExportFormat = Literal["onnx", "onnx-int8", "pt2", "executorch", "safetensors"]
Int8Method = Literal["per-channel", "per-tensor"]
Progress = Callable[[str, int, int], None]
SUFFIXES: dict[ExportFormat, str] = {
    "onnx": ".onnx",
    "onnx-int8": "-int8.onnx",
    "pt2": ".pt2",
    "executorch": ".pte",
    "safetensors": ".safetensors",
}


@dataclass(frozen=True)
class Exported:
    """One file that was made and tested.

    Args:
        form: of the file.
        path: of the file; None where it was refused, as it is worse than the checkpoint.
        size: bytes.
        check: findings.
        precisions: layers of an int8 file that are not int8.
        description: that it carries.
    """

    form: ExportFormat
    path: Path | None
    size: int
    check: Check
    precisions: Precisions
    description: Description

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the JSON beside the file holds them."""
        return {
            "file": None if self.path is None else self.path.name,
            "format": self.form,
            "bytes": self.size,
            "in_float32": list(self.precisions.float32),
            "in_int4": list(self.precisions.int4),
            **self.check.to_dict(),
            "description": asdict(self.description),
        }


def export_checkpoint(
    classifier: Classifier,
    description: Description,
    formats: Sequence[ExportFormat],
    stem: Path,
    checked: CheckImages,
    calibration: Images | None,
    *,
    int8: Int8Method = "per-channel",
    accept_worse: bool = False,
    progress: Progress = lambda *_: None,
) -> list[Exported]:
    """Export a classifier to files that were tested.

    A file that the paired test calls worse than the checkpoint is not kept, or with ``accept_worse`` has "-worse" in
    its name. Until it is tested a file lies in a hidden folder, which goes in any case.

    Args:
        classifier, description: of the checkpoint.
        formats: what to write.
        stem: path of the files without suffix; a JSON of the same name is written beside each.
        checked: images that test each file.
        calibration: training images, uint8 ``[N, 3, crop, crop]``, for int8.
        int8: scales of int8 weights.
        accept_worse: keep files that are worse.
        progress: called with (what, done, total).

    Raises:
        ValueError: a runtime is missing, or there are no images to calibrate with.
        OSError: the folder cannot be written.
    """
    # 1. Every runtime is there before anything is made.
    for form in formats:
        check_installed(form)
    if "onnx-int8" in formats and (calibration is None or not len(calibration)):
        raise ValueError(
            "onnx-int8: needs training images to calibrate with; name their data set with --data and --root"
        )
    threads = torch.get_num_threads()
    stem.parent.mkdir(parents=True, exist_ok=True)

    # 2. The checkpoint's own answers.
    def ask(images: Images) -> Any:
        with torch.inference_mode():
            return classifier(torch.from_numpy(images)).numpy()

    total = len(checked.images)
    wanted = predict_all(ask, checked.images, partial(_report, progress, "testing the checkpoint", total))

    # 3. Each file: written aside, tested, named.
    found: list[Exported] = []
    for form in formats:
        float32 = next((one.path for one in found if one.form == "onnx"), None)
        with tempfile.TemporaryDirectory(prefix=f".{stem.name}.", suffix=PART, dir=stem.parent) as aside:
            part = Path(aside) / f"{stem.name}{SUFFIXES[form]}"
            precisions = _write(classifier, description, form, part, float32, calibration, int8, progress)
            model = open_model(part, threads)
            size = part.stat().st_size
            check = check_file(
                model.predict, ask, wanted, checked, partial(_report, progress, f"testing {form}", total)
            )
            path = None
            if not check.worse or accept_worse:
                mark = "-worse" if check.worse else ""
                name = f"{stem.name}{SUFFIXES[form]}"
                path = stem.with_name(f"{name.removesuffix(part.suffix)}{mark}{part.suffix}")
                _sync(part)
                part.replace(path)
        exported = Exported(form, path, size, check, precisions, model.description)
        if path is not None:
            write_json(path.with_name(f"{path.name}.json"), exported.to_dict())
        found.append(exported)
    return found


def check_installed(form: ExportFormat) -> None:
    """Check that what writes and reads a format is installed.

    Raises:
        ValueError: a package is missing; the message names the extra.
    """
    needs = {
        "onnx": ("onnx", "onnxscript", "onnxruntime"),
        "onnx-int8": ("onnx", "onnxscript", "onnxruntime"),
        "pt2": (),
        "executorch": ("executorch",),
        "safetensors": ("safetensors",),
    }[form]
    missing = [name for name in needs if not is_installed(name)]
    if missing:
        extra = "executorch" if form == "executorch" else "export"
        raise ValueError(f"--to {form}: needs {', '.join(missing)}; pip install 'mosaicaug[{extra}]'")


def _write(
    classifier: Classifier,
    description: Description,
    form: ExportFormat,
    part: Path,
    float32: Path | None,
    calibration: Images | None,
    int8: Int8Method,
    progress: Progress,
) -> Precisions:
    """Write one file, and say which layers of an int8 file are not int8.

    Int8 is made of ``float32``, the ONNX file of the same classifier, where that was exported before.
    """
    from pmsi.deployment import convert

    if form != "onnx-int8":
        write = {
            "onnx": convert.write_onnx,
            "pt2": convert.write_pt2,
            "executorch": convert.write_executorch,
            "safetensors": convert.write_safetensors,
        }[form]
        write(classifier, description, part)
        return Precisions()
    from pmsi.deployment.quantize import quantize

    assert calibration is not None
    source = float32 or part.with_name("float32.onnx")
    if float32 is None:
        convert.write_onnx(classifier, description, source)
    precisions = quantize(source, part, calibration, int8, lambda done, total: progress("choosing layers", done, total))
    convert.describe_onnx(part, description.with_precision("int8"))
    return precisions


def _report(progress: Progress, what: str, total: int, done: int) -> None:
    progress(what, done, total)


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())
