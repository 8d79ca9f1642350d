"""Files of made-up results, and a side with one worker process."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.results import write_results
from bench.throughput.rows import compare_with_copies
from tests.helpers.bench_results import make_environment, make_throughput_rows


@pytest.fixture
def throughput_folder(tmp_path: Path) -> Path:
    """Folder of results with a run of the throughput benchmark on a CPU."""
    rows = compare_with_copies(list(make_throughput_rows()))
    write_results(tmp_path / "throughput-cpu-fast-one.json", make_environment("cpu"), rows)
    return tmp_path


@pytest.fixture
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain side loads its images in one worker process."""
    monkeypatch.setattr("os.cpu_count", lambda: 1)
