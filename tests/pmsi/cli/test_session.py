"""Sessions of commands: device and threads as they were asked for."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import pytest
from rich.console import Console

from pmsi.cli.options import ComputeOptions
from pmsi.cli.session import open_session


@dataclass(frozen=True)
class Asked:
    """Command of one setting."""

    compute: ComputeOptions = field(default_factory=ComputeOptions)


def test_advice_on_threads_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmsi.cli.session.set_threads", lambda asked: f"asked for {asked}")
    said = io.StringIO()
    options = ComputeOptions(device="cpu", precision="32", threads=3)
    session = open_session(Asked(options), options, Console(file=said))
    assert session.fabric.device.type == "cpu"
    assert said.getvalue() == "asked for 3\n"
