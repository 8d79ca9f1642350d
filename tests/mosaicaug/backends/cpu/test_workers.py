"""Helper threads: units shared out once each, torch's own threads left alone, errors passed on, processes forked."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mosaicaug import Jigsaw, apply
from mosaicaug.backends.cpu import compiled, tiles, workers
from tests.helpers.oracle import number_pixels


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_every_unit_is_made_once_on_one_thread_of_torch() -> None:
    seen: list[tuple[int, int]] = []
    names: set[str] = set()
    with torch.inference_mode():
        out = torch.zeros(50)  # an inference tensor is written in inference mode alone

        def make(unit: int) -> None:
            seen.append((unit, torch.get_num_threads()))
            names.add(threading.current_thread().name.rpartition("_")[0])
            out[unit] += 1

        workers.share(make, list(range(50)))
    assert sorted(seen) == [(unit, 1) for unit in range(50)]
    assert names == {"mosaicaug"}, "as tools show the threads of a process"
    assert (out == 1).all()
    assert torch.get_num_threads() == 2
    fresh: list[int] = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert fresh == [2]


@pytest.mark.usefixtures("two_threads")
def test_what_a_helper_raises_reaches_the_caller() -> None:
    def fail(unit: int) -> None:
        raise ZeroDivisionError(unit)

    with pytest.raises(ZeroDivisionError):
        workers.share(fail, [1, 2, 3])


def test_one_thread_needs_no_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    seen: list[tuple[int, int]] = []
    workers.share(lambda unit: seen.append((unit, threading.get_ident())), [1, 2, 3])
    assert seen == [(unit, threading.get_ident()) for unit in (1, 2, 3)]


@pytest.mark.usefixtures("two_threads")
def test_the_caller_works_alone_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while the interpreter shuts down."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    monkeypatch.setattr(workers, "_pool", pool)
    seen: list[int] = []
    workers.share(seen.append, [1, 2, 3])
    assert seen == [1, 2, 3]
    assert workers.start(lambda: None, 2) == []


def test_finish_raises_what_a_helper_raised() -> None:
    begun = threading.Event()

    def fail() -> None:
        begun.set()
        raise ZeroDivisionError

    started = workers.start(fail, 1)
    assert begun.wait(30)
    with pytest.raises(ZeroDivisionError):
        workers.finish(started)


def assert_set(event: threading.Event) -> None:
    assert event.wait(30)


def test_helpers_that_never_began_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()
    monkeypatch.setattr(workers, "_pool", ThreadPoolExecutor(1))
    blocker = workers.start(lambda: assert_set(free), 1)
    workers.finish(workers.start(lambda: pytest.fail("was told not to"), 1))
    free.set()
    workers.finish(blocker)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.parametrize("kernel", [True, False])
def test_a_forked_process_has_helpers_of_its_own(kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernel:
        monkeypatch.setattr(compiled, "load", lambda: None)
    monkeypatch.setattr(compiled, "SHARED_BYTES", 0)
    monkeypatch.setattr(tiles, "STAGE_BYTES", 0)  # blocks of one image
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # OpenMP's own threads do not survive a fork
    images = number_pixels((64, 3, 64, 64))
    plan = Jigsaw(4).sample(images.shape)
    want = apply(images, plan).numpy().tobytes()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        os._exit(0 if apply(images, plan).numpy().tobytes() == want else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
