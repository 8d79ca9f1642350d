"""Timing of the kernel, by a clock that says what it is told: rows, choices, the winner, the end without a GPU."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from bench.gpu import timing
from bench.throughput.cases import Case
from mosaicaug import CutMix, apply
from mosaicaug.backends.triton import kernel, launch

CASE = Case("cutmix", batch=2, size=16, dtype="uint8")


@pytest.mark.usefixtures("interpreter")
def test_a_case_is_timed_with_each_choice_on_images_in_turn() -> None:
    seen: list[int] = []

    def clock(launches: Sequence[Callable[[], object]]) -> float:
        made = [call() for call in launches]
        seen.append(len({tensor.data_ptr() for tensor in made if isinstance(tensor, torch.Tensor)}))
        return 10.0 * len(seen)

    choices = timing.CHOICES[:2]
    rows = list(timing.measure_case(CASE, choices, "cpu", time.monotonic() + 600, timer=clock, host_calls=1))
    assert seen == [timing.SETS] * 3  # the copy, and two choices
    assert [(row["choice"], row["kernel_us"], row["of_copy"]) for row in rows] == [
        ("as it is", 20.0, 0.5),
        ("4 rows", 30.0, 0.333),
    ]
    assert rows[0]["host_us"] > 0
    assert list(timing.measure_case(CASE, choices, "cpu", time.monotonic() - 1, timer=clock)) == []


@pytest.mark.usefixtures("interpreter")
def test_choices_change_the_launch_and_not_the_bits() -> None:
    images = torch.randint(0, 256, (2, 3, 16, 32), dtype=torch.uint8)
    plan = CutMix().sample(images.shape)
    wanted, shown = apply(images, plan, backend="torch"), kernel._apply_plan_kernel
    rows, chunks = launch.MOST_ROWS, launch.CHUNKS
    for choice in (timing.Choice("a", rows=1, chunks=256), timing.Choice("b", evict_first=True)):
        with timing.use_choice(choice):
            assert (choice.rows or rows, choice.chunks or chunks) == (launch.MOST_ROWS, launch.CHUNKS)
            assert (kernel._apply_plan_kernel is shown) != choice.evict_first
            assert torch.equal(apply(images, plan, backend="triton"), wanted)
    assert kernel._apply_plan_kernel is shown
    assert (rows, chunks) == (launch.MOST_ROWS, launch.CHUNKS)


def test_the_winner_has_the_least_time_over_cases_that_all_choices_have() -> None:
    times = {("a", "as it is"): 10, ("b", "as it is"): 10, ("a", "4 rows"): 5, ("b", "4 rows"): 16}
    rows = [{"case": case, "choice": choice, "kernel_us": us} for (case, choice), us in times.items()]
    assert timing.name_winner(rows) == {"choice": "4 rows", "times": {"as it is": 1.0, "4 rows": 0.894}}
    assert timing.name_winner(rows[:2])["choice"] == "as it is"
    assert timing.name_winner([])["times"] == {}


def test_the_model_stands_beside_the_measurement(tmp_path: Path) -> None:
    chips = {chip: {"fraction_of_copy": 0.9} for chip in ("H100", "H200")}
    row = {"augmentation": "cutmix", "task": "augment", "level": None, "size": 16, "dtype": "uint8", "layout": "nchw"}
    (tmp_path / "model.json").write_text(json.dumps({"rows": [row | chips]}))
    assert timing.read_model(CASE, tmp_path / "model.json") == {"H100": 0.9, "H200": 0.9}
    assert timing.read_model(CASE, tmp_path / "none.json") == {}
    assert all(timing.read_model(case) for case in timing.CASES)
    timed = {"case": "x", "choice": "as it is", "kernel_us": 20.0, "copy_us": 18.0, "host_us": 40.0, "of_copy": 0.9}
    found = {"rows": [timed | {"modelled_of_copy": {"H100": 1.0, "H200": 0.85}}], "winner": timing.name_winner([timed])}
    assert "| x | as it is | 20.0 | 18.0 | 0.90 | 1.00 / 0.85 | 40 |" in timing.render(found)
    assert "Winner: as it is (times to as it is: as it is 1.000)." in timing.render(found)


def test_timing_ends_at_once_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert timing.main([str(tmp_path / "out.json"), "60"]) == 1
    assert capsys.readouterr().out == "gpu-timing: no CUDA device on this machine\n"
