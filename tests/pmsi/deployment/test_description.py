"""Descriptions survive a file's metadata; others, and those of another version, are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pmsi.deployment.description import name_damage, read_description
from tests.helpers.small_export import describe


def test_a_description_comes_back() -> None:
    description = describe(("Ärmelkanal", "b, c"))
    assert read_description(description.to_json(), "a") == description
    assert description.with_precision("int8").precision == "int8"


def test_what_cannot_be_read_is_one_line() -> None:
    values = json.loads(describe().to_json())
    for text, message in (
        (None, "a.onnx is no export of pmsi: it holds no description"),
        ("{", "a.onnx has a damaged description"),
        ("[1]", "a.onnx has a damaged description"),
        (json.dumps({**values, "format": 9}), "a.onnx is an export of format 9, of pmsi 0.1.0 (test); this version"),
        (json.dumps({**values, "colour": 1}), "a.onnx is an export of format 1, of pmsi 0.1.0 (test); this version"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            read_description(text, "a.onnx")
    assert "is damaged, or no .onnx file" in str(name_damage(Path("a.onnx"), RuntimeError("two\nlines")))
