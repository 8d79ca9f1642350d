"""Throughput benchmark: every case on every side, checked and then timed; run by `pytest --benchmark`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import choose_device
from bench.measure import make_clock, measure_peak, plan_rounds
from bench.results import Row
from bench.throughput.batch import UnfitError, make_batch
from bench.throughput.cases import Case, list_pairs
from bench.throughput.gates import check_side
from bench.throughput.rows import make_row, make_times
from bench.throughput.sides import make_run, read_images
from bench.throughput.sides.ours import count_plan_bytes


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    device = choose_device(metafunc.config)
    star = set(list_pairs("cpu"))
    clock = make_clock(device)
    metafunc.parametrize(
        ("device", "case", "side"),
        [
            pytest.param(
                device,
                case,
                side,
                id=f"{case.name}-{side}",
                marks=[pytest.mark.benchmark(group=case.name, timer=clock, disable_gc=True)]
                + [pytest.mark.star] * ((case, side) in star),
            )
            for case, side in list_pairs(device)
        ],
    )


@pytest.fixture(autouse=True)
def _one_core_for_draws(case: Case) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if case.task == "draw" else threads)
    yield
    torch.set_num_threads(threads)


def test_throughput(
    case: Case, side: str, device: str, benchmark: BenchmarkFixture, record: Callable[[Row], None]
) -> None:
    try:
        check_side(case, side, device)
        found = measure(case, side, device, benchmark)
    except UnfitError as reason:
        record(make_row(case, side, skipped=str(reason)))
        pytest.skip(str(reason))
    except Exception as error:
        record(make_row(case, side, failed=f"{type(error).__name__}: {error}"))
        raise
    record(make_row(case, side, **found))


def measure(case: Case, side: str, device: str, benchmark: BenchmarkFixture) -> dict[str, Any]:
    """Measure the time of a call; for ours, peak memory too."""
    run = make_run(case, side, make_batch(case, device))
    rounds = plan_rounds(run, make_clock(device))
    benchmark.pedantic(run, **rounds._asdict())  # type: ignore[no-untyped-call]
    assert benchmark.stats is not None
    stats = benchmark.stats.stats
    found = make_times(case, median=stats.median, q1=stats.q1, q3=stats.q3, rounds=stats.rounds)
    if side.startswith("ours") and case.task != "draw":
        peak = measure_peak(lambda: read_images(run()), device, fresh=side == "ours")
        found |= {"peak_extra_bytes": peak, "plan_bytes": count_plan_bytes(case)}
    return found
