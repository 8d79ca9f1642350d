"""What `show_config` prints: with a compiled kernel, and the reason where there is none."""

from __future__ import annotations

import pytest
import torch

from mosaicaug import show_config
from mosaicaug.backends.cpu import compiled


def test_versions_and_backends_are_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "describe", lambda: "")
    show_config()
    first, cpu, gpu, gradients = capsys.readouterr().out.splitlines()
    assert f"torch {torch.__version__}" in first
    assert cpu.startswith("CPU: compiled kernel (uint8, bfloat16, float32;")
    assert (gpu[:4], gradients[:9]) == ("GPU:", "gradients")


def test_a_fallback_is_named_once_with_its_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "describe", lambda: "it was not compiled")
    show_config()
    out = capsys.readouterr().out
    assert out.count("fallback") == 1
    assert "CPU: fallback to torch's operations, for there is no compiled kernel: it was not compiled," in out
