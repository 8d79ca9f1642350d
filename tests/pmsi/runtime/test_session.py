"""Session: one value with the device and the processes of a command."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from pmsi.runtime.session import Session
from tests.helpers.small_run import make_fabric


def test_a_session_has_the_processes_of_its_fabric() -> None:
    session = Session(make_fabric())
    assert (session.processes.count, session.processes.rank, session.compile) == (1, 0, False)
    assert session.processes is session.processes
    assert session.processes.fabric is session.fabric


def test_a_session_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Session(make_fabric()).compile = True  # type: ignore[misc]
