"""Stop requests: the first one waits, the second one does not, and other handlers come back."""

from __future__ import annotations

import signal
import threading

import pytest

from pmsi.runtime.signals import GracefulStop, Stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_and_the_second_stops_at_once(number: signal.Signals) -> None:
    with GracefulStop() as stop:
        assert stop.asked is None
        signal.raise_signal(number)
        assert stop.asked == number
        with pytest.raises(Stopped, match=f"stopped by {number.name}") as stopped:
            signal.raise_signal(number)
    assert stopped.value.signal == number
    assert isinstance(stopped.value, KeyboardInterrupt)


def test_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with GracefulStop() as stop:
        assert signal.getsignal(signal.SIGTERM) == stop._on_signal
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_threads_leave_signals_alone() -> None:
    found = []

    def enter() -> None:
        with GracefulStop() as stop:
            found.append(stop.before)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [{}]
