"""Batches that do not fit in memory: what would fit, and what is said."""

from __future__ import annotations

import resource
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pmsi.training.memory import check_host, largest_batch, measure_peak
from tests.helpers.forked import run_forked
from tests.helpers.small_run import RECIPE, Watch, make_dataset, make_trainer

CPU = torch.device("cpu")


@pytest.mark.parametrize("fits", [0, 2, 3, 17, 30, 31])
def test_the_largest_batch_is_found(fits: int) -> None:
    tried: list[int] = []

    def attempt(size: int) -> None:
        tried.append(size)
        if size > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert largest_batch(32, attempt) == fits
    assert len(tried) <= 5
    assert min(tried) >= 2


@pytest.mark.parametrize("below", [2, 3, 4])
def test_no_step_of_one_image_is_tried(below: int) -> None:
    tried: list[int] = []
    assert largest_batch(below, tried.append) == (below - 1 if below > 2 else 0)
    assert tried == [*range(2, below)]


@pytest.mark.parametrize(
    "words",
    [
        "[enforce fail] DefaultCPUAllocator: can't allocate memory",
        "could not create a primitive",
        "could not create a memory object",
    ],
)
def test_words_of_a_host_without_memory(words: str) -> None:
    with pytest.raises(ValueError, match="32 images of 96 px a step do not fit in the host's memory"):
        check_host(RuntimeError(words), 32, 96)


def test_other_errors_are_not_taken_for_memory() -> None:
    def attempt(_: int) -> None:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        largest_batch(32, attempt)
    check_host(RuntimeError("shape mismatch"), 32, 96)


def test_a_batch_that_does_not_fit_a_real_host_is_one_line(tmp_path: Path) -> None:
    """A process with little address space, so that torch's own allocator refuses."""
    script = f"""
import resource, sys
import torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
from tests.helpers.small_run import RECIPE, Watch, make_backbone, make_dataset, make_trainer
from dataclasses import replace
from pathlib import Path
import pmsi.models.registry
pmsi.models.registry.make_backbone = make_backbone
torch.set_num_threads(1)
recipe = replace(RECIPE, resize=256, crop=256, batch_size=256, epochs=1)
images = make_dataset(side=256, train_images=256 * 3)
trainer = make_trainer(Path({str(tmp_path)!r}), recipe, dataset=images)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20,) * 2)
try:
    trainer.run(Watch())
except ValueError as error:
    print(error)
"""
    done = run_forked("-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "256 images of 256 px a step do not fit in the host's memory; lower --batch-size or --crop\n"
    )
    assert not (tmp_path / "last.ckpt").exists()


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize(
    ("fits", "advice"),
    [
        (6, "12 images of 32 px a step do not fit in the memory of cpu, 6 do; set --batch-size to 6 or less"),
        (1, "not even 2 do; lower --crop"),
    ],
)
def test_the_advice_is_the_largest_batch_that_fits(tmp_path: Path, fits: int, advice: str) -> None:
    trainer = make_trainer(tmp_path, replace(RECIPE, batch_size=12), dataset=make_dataset(train_images=36))

    def refuse(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        if len(given[0]) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")

    trainer.network.register_forward_pre_hook(refuse)
    with pytest.raises(ValueError, match=advice):
        trainer.run(Watch())
    assert not (tmp_path / "last.ckpt").exists()
    tried = any(parameter.grad is not None for parameter in trainer.network.parameters())
    assert tried == (fits > 1), "a backward pass, which takes the most"


def test_peak_memory_of_the_process_is_told() -> None:
    before = measure_peak(CPU)
    assert before is not None
    held = torch.ones(int(before * 1e9) // 4 + 100_000_000)
    after = measure_peak(CPU)
    assert after is not None
    assert after - before >= 0.3
    assert held.sum() > 0


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_has_the_unit_of_its_system(monkeypatch: pytest.MonkeyPatch, platform: str, unit: int) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    monkeypatch.setattr(resource, "getrusage", lambda _: usage)
    monkeypatch.setattr(sys, "platform", platform)
    assert measure_peak(CPU) == usage.ru_maxrss * unit / 1e9


def test_a_system_that_does_not_tell_its_memory_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert measure_peak(CPU) is None
