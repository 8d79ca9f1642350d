"""Record of versions, device and commit."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from pmsi.runtime import environment
from pmsi.runtime.environment import describe_environment, name_device, name_version, read_commit
from tests.helpers.small_run import make_fabric


def test_the_record_names_versions_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    found = describe_environment(make_fabric())
    assert found["lightning-fabric"] == importlib.metadata.version("lightning-fabric")
    assert found["device"] == f"cpu: {name_device(torch.device('cpu'))} (3 threads)"
    assert (found["precision"], found["processes"], found["torch"]) == ("32-true", "1", torch.__version__.split("+")[0])
    assert all(isinstance(value, str) and value for value in found.values())


def test_a_gpu_is_named_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert name_device(torch.device("cuda", 1)) == "GPU 1"


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", fail)
    assert read_commit() == "not a git checkout"


def test_the_commit_is_that_of_the_code_wherever_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = read_commit()
    monkeypatch.chdir(tmp_path)
    assert environment.read_commit() == wanted


def test_a_version_has_its_commit() -> None:
    assert name_version() == f"pmsi {importlib.metadata.version('mosaicaug')} ({read_commit()})"
