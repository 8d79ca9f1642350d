"""Devices and precisions: what a machine cannot offer, and that precision belongs to a run."""

from __future__ import annotations

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
