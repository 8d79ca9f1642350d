"""What `show_config` prints: with a compiled kernel, and the reason where there is none."""

from __future__ import annotations

import importlib.metadata
import platform

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


@pytest.mark.parametrize("missing", [False, True])
def test_lines_are_whole(missing: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def read(name: str) -> str:
        if missing:
            raise importlib.metadata.PackageNotFoundError(name)
        return f"1.2 of {name}"

    monkeypatch.setattr(importlib.metadata, "version", read)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    show_config()
    first, _, gpu, _ = capsys.readouterr().out.splitlines()
    own = "missing" if missing else "1.2 of mosaicaug"
    assert first == f"mosaicaug {own}, python {platform.python_version()}, torch {torch.__version__}"
    triton = "triton is missing: images on a GPU need backend='torch', which is slower"
    assert gpu == f"GPU: no CUDA device; {triton if missing else 'triton 1.2 of triton'}"
