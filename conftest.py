"""`pytest --benchmark`: collects bench/ instead of tests/ and times it with pytest-benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "bench"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mosaicaug")
    group.addoption("--benchmark", action="store_true", help="time mosaicaug beside other libraries; runs no tests")
    group.addoption(
        "--benchmark-device", choices=("cpu", "cuda"), help="what to time on; by default cuda where there is one"
    )
    group.addoption(
        "--benchmark-out",
        metavar="PATH",
        type=Path,
        help="file for the results, written with `=`: pytest takes a lone path for what is to be tested; by default a "
        "run of all cases goes to bench/results and a run of some goes nowhere",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "star: cases of the star round the centre, all that a CPU runs")
    if not config.getoption("benchmark"):
        return
    if not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError("--benchmark needs pytest-benchmark: pip install 'mosaicaug[bench]'")
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(BENCH)]
    config.option.benchmark_columns = config.option.benchmark_columns or ["median", "iqr", "rounds", "iterations"]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if BENCH in (collection_path, *collection_path.parents) and not config.getoption("benchmark") else None
