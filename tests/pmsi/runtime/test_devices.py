"""Devices and precisions: what a machine cannot offer, and that precision belongs to a run."""

from __future__ import annotations

import platform
import resource
from pathlib import Path

import pytest
import torch

from pmsi.runtime.devices import open_fabric
from tests.helpers.small_run import Watch, make_session, make_trainer


@pytest.mark.usefixtures("small_backbone")
def test_precision_belongs_to_the_run(tmp_path: Path) -> None:
    make_trainer(tmp_path).run(Watch())
    with pytest.raises(ValueError, match="precision is '32-true' there, 'bf16-mixed' was asked for"):
        make_trainer(tmp_path, session=make_session("bf16"))


def test_what_this_machine_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="--precision fp16: needs a CUDA device; choose bf16 or 32"):
        open_fabric("cpu", "fp16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="--device cuda: this machine cannot offer it"):
        open_fabric("cuda", "32")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_freed_memory_is_used_again_on_a_cpu() -> None:
    open_fabric("cpu")
    numbers, times = 10 * 2**20, 10  # 40 MiB, more than the 32 that glibc keeps of its own accord
    for _ in range(times):
        torch.ones(numbers)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(times):
        torch.ones(numbers)
    faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before
    assert faults < times * numbers * 4 // 4096 // 2
