"""Gathers the rows of a run of `pytest --benchmark` and writes them when it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import results
from bench.cases import list_pairs
from bench.results import Row

ROWS = pytest.StashKey[list[Row]]()
NOTE = pytest.StashKey[str]()


def find_device(config: pytest.Config) -> str:
    """What was asked for, or cuda where there is one."""
    asked: str | None = config.getoption("benchmark_device")
    if asked == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--benchmark-device cuda: no CUDA device on this machine")
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[Row], None]:
    """Takes a row into the results."""
    return request.config.stash.setdefault(ROWS, []).append


def choose_path(asked: Path | None, environment: dict[str, Any], *, complete: bool) -> Path | None:
    """Where results go: where they were asked to go; else a run of all cases to bench/results, and a part nowhere."""
    return asked or (results.place("throughput", environment) if complete else None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    device = find_device(config)
    environment = results.describe(device)
    complete = len(rows) == len(list_pairs(device))
    path = choose_path(config.getoption("benchmark_out"), environment, complete=complete)
    if path is not None:
        results.write(path, environment, rows)
    what = f"results of {'all' if complete else 'some'} cases"
    config.stash[NOTE] = f"{what} are in {path}" if path else f"{what} were not kept: --benchmark-out=PATH keeps them"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.write_line(config.stash.get(NOTE, "no results"))
