"""Helper threads of this process, which share the work of a call with its caller."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

_local = threading.local()
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


def use_one_thread() -> None:
    """Let torch calculate on one thread in the calling helper; what it does elsewhere stays as it was.

    `torch.set_num_threads` counts for its thread, and for threads that are new to torch: for these, a short-lived one
    sets their number again.
    """
    if getattr(_local, "alone", False):
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    restorer = threading.Thread(target=torch.set_num_threads, args=(threads,))
    restorer.start()
    restorer.join()
    _local.alone = True


def _forget() -> None:
    """Forget the pool in a forked process, where its threads do not exist."""
    global _pool  # noqa: PLW0603
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
