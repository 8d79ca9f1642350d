"""Helper threads of this process, which share the work of a call with its caller."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
_local = threading.local()
_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def start(work: Callable[[], None], helpers: int) -> list[Future[None]]:
    """Let ``helpers`` threads do ``work`` as they come free; they wait for it without using a core.

    Returns:
        A future for each; none where the interpreter is shutting down and starts no threads.
    """
    global _pool  # noqa: PLW0603 - a process has one
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="mosaicaug")
    try:
        return [_pool.submit(work) for _ in range(helpers)]
    except RuntimeError:
        return []


def finish(started: list[Future[None]]) -> None:
    """Wait for helpers that began, and tell the others not to; raises what they raised."""
    for future in [future for future in started if not future.cancel()]:
        future.result()


def share(make: Callable[[T], None], units: Sequence[T]) -> None:
    """Make every unit by torch's operations, in as many threads as torch may use; each calculates on one.

    The caller only waits: its own operations would open a parallel region each.
    """
    threads, inference = min(torch.get_num_threads(), len(units)), torch.is_inference_mode_enabled()
    queue = iter(units)

    def work() -> None:
        use_one_thread()
        with torch.inference_mode(inference), torch.no_grad():
            for unit in queue:
                make(unit)

    started = start(work, threads) if threads > 1 else []
    for future in started:
        future.result()
    for unit in queue:
        make(unit)


def use_one_thread() -> None:
    """Let torch calculate on one thread in the calling helper; what it does elsewhere stays as it was.

    `torch.set_num_threads` counts for its thread, and for threads that are new to torch: for these, a short-lived one
    sets their number again.
    """
    if getattr(_local, "alone", False):
        return
    with _lock:  # another helper would read the 1 of this one
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        restorer = threading.Thread(target=torch.set_num_threads, args=(threads,))
        restorer.start()
        restorer.join()
    _local.alone = True


def _forget() -> None:
    """Forget pool and lock in a forked process, where the threads that hold them do not exist."""
    global _lock, _pool
    _lock, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
