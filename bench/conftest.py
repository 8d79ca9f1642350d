"""Collects the rows of a run of `pytest --benchmark` and writes them when it ends."""

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


def choose_device(config: pytest.Config) -> str:
    """Device type to time on: the option's, or "cuda" if there is one, else "cpu"."""
    asked: str | None = config.getoption("benchmark_device")
    if asked == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--benchmark-device cuda: no CUDA device on this machine")
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[Row], None]:
    """Appends a row to the results of the throughput benchmark."""
    return request.config.stash.setdefault(ROWS["throughput"], []).append


@pytest.fixture
def record_training(request: pytest.FixtureRequest) -> Callable[[Row], None]:
    """Appends a row to the results of the training benchmark."""
    return request.config.stash.setdefault(ROWS["engine"], []).append


def choose_path(kind: str, asked: Path | None, environment: dict[str, Any], *, complete: bool) -> Path | None:
    """Path of the results: ``asked``, else bench/results for a complete run, else None.

    Results of the training benchmark are written beside ``asked``, with a prefix.
    """
    if asked is None:
        return results.results_path(kind, environment) if complete else None
    return asked if kind == "throughput" else asked.with_name(f"{kind}-{asked.name}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    notes = []
    for kind, key in ROWS.items():
        rows = config.stash.get(key, [])
        if not rows:
            continue
        device = choose_device(config)
        environment = results.describe_environment(device)
        expected = len(list_pairs(device)) if kind == "throughput" else count_rows(device)
        complete = len(rows) == expected
        path = choose_path(kind, config.getoption("benchmark_out"), environment, complete=complete)
        if path is not None:
            results.write_results(path, environment, rows if kind == "engine" else compare_with_copies(rows))
        what = f"{kind}: results of {'all' if complete else 'some'} cases"
        where = f"are in {path}" if path else "were not kept: --benchmark-out=PATH keeps them"
        notes.append(f"{what} {where}")
    if notes:
        config.stash[NOTE] = "\n".join(notes)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.write_line(config.stash.get(NOTE, "no results"))
