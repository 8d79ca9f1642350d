"""Gathers the rows of a run of `pytest --benchmark` and writes them when it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import results
from bench.results import Row
from bench.throughput.cases import list_pairs
from bench.throughput.rows import compare_with_copies
from bench.training.measure import count_rows

ROWS = {"throughput": pytest.StashKey[list[Row]](), "engine": pytest.StashKey[list[Row]]()}
NOTE = pytest.StashKey[str]()


def find_device(config: pytest.Config) -> str:
    """What was asked for, or cuda where there is one."""
    asked: str | None = config.getoption("benchmark_device")
    if asked == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--benchmark-device cuda: no CUDA device on this machine")
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[Row], None]:
    """Takes a row into the results of throughput."""
    return request.config.stash.setdefault(ROWS["throughput"], []).append


@pytest.fixture
def record_engine(request: pytest.FixtureRequest) -> Callable[[Row], None]:
    """Takes a row into the results of the engine."""
    return request.config.stash.setdefault(ROWS["engine"], []).append


def choose_path(kind: str, asked: Path | None, environment: dict[str, Any], *, complete: bool) -> Path | None:
    """Where results go: where they were asked to go; else a run of all cases to bench/results, and a part nowhere.

    Those of the engine are asked to go beside those of throughput.
    """
    if asked is None:
        return results.place(kind, environment) if complete else None
    return asked if kind == "throughput" else asked.with_name(f"{kind}-{asked.name}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    notes = []
    for kind, key in ROWS.items():
        rows = config.stash.get(key, [])
        if not rows:
            continue
        device = find_device(config)
        environment = results.describe(device)
        expected = len(list_pairs(device)) if kind == "throughput" else count_rows(device)
        complete = len(rows) == expected
        path = choose_path(kind, config.getoption("benchmark_out"), environment, complete=complete)
        if path is not None:
            results.write(path, environment, rows if kind == "engine" else compare_with_copies(rows))
        what = f"{kind}: results of {'all' if complete else 'some'} cases"
        where = f"are in {path}" if path else "were not kept: --benchmark-out=PATH keeps them"
        notes.append(f"{what} {where}")
    if notes:
        config.stash[NOTE] = "\n".join(notes)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.write_line(config.stash.get(NOTE, "no results"))
