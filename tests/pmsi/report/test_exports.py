"""The table of exported files says what was measured, and which were refused."""

from __future__ import annotations

from typing import Any

from pmsi.report.exports import exports_table

FILE: dict[str, Any] = {
    "file": "a.onnx",
    "format": "onnx-int8",
    "bytes": 3_900_000,
    "in_float32": ["conv", "linear"],
    "in_int4": ["large"],
    "images": 2903,
    "agreement": 91.2,
    "largest_difference": 0.65,
    "accuracy": 68.3,
    "checkpoint_accuracy": 69.0,
    "milliseconds": 2.1,
    "checkpoint_milliseconds": 27.3,
    "difference": -0.7,
    "interval": [-1.5, 0.1],
    "confidence": 0.95,
    "p_value": None,
    "verdict": "not told apart",
}


def test_files_are_rows() -> None:
    table = exports_table([FILE, {**FILE, "file": None, "p_value": 0.0}], "2903 images")
    assert table.rows[0][:4] == ("onnx-int8", "3.90", "2.1", "27.3")
    assert table.rows[0][-3:] == ("-0.70 (-1.50 to +0.10)", "", "not told apart")
    assert table.rows[1][0] == "onnx-int8 (refused)"
    assert table.rows[1][-2] == "< 1e-99"
    assert table.notes[1:3] == ("onnx-int8: layers in float32: conv, linear.", "onnx-int8: layers in int4: large.")
