"""Copies of a command that work side by side on one folder, with an equal share of the threads each."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import torch

from pmsi.runtime.processes import process_count

COMMAND = (sys.executable, "-m", "pmsi")


@contextmanager
def start_copies(words: Sequence[str], jobs: int) -> Iterator[None]:
    """Run ``jobs - 1`` copies of this `pmsi` command beside the block, which is the last one.

    Small networks leave most of a second thread idle: two runs of one thread each end sooner than one after the other
    on two threads. Copies print nothing; they are waited for, and stopped (what they did is saved) if the block fails.

    Args:
        words: of the command line; a copy gets ``--jobs 1`` at their end.
        jobs: 1 or more; each gets this process's number of threads divided by ``jobs``, at least one.

    Raises:
        ValueError: ``jobs`` is below 1, or above 1 in a process of torchrun; or a copy failed, in its own words.
    """
    if jobs < 1:
        raise ValueError(f"--jobs: must be 1 or more, got {jobs}")
    if jobs == 1:
        yield
        return
    if process_count() > 1:
        raise ValueError(f"--jobs {jobs}: torchrun has several processes for each run already; leave --jobs out")
    before = torch.get_num_threads()
    threads = max(before // jobs, 1)
    torch.set_num_threads(threads)
    copies = [_start([*words, "--jobs", "1"], threads) for _ in range(jobs - 1)]
    try:
        yield
        for copy, errors in copies:
            _wait(copy, errors)
    finally:
        for copy, errors in copies:
            copy.terminate()  # nothing happens to one that has ended
            copy.wait()
            errors.close()
        torch.set_num_threads(before)


def _start(words: Sequence[str], threads: int) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the copy
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    # A session of its own: Ctrl-C reaches this process alone, which then stops the copies once.
    copy = subprocess.Popen(
        [*COMMAND, *words], env=environment, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
    )
    return copy, errors


def _wait(copy: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    code = copy.wait()
    if code:
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
        raise ValueError(f"--jobs: a copy of this command ended with {code}: {said[-1] if said else 'it said nothing'}")
