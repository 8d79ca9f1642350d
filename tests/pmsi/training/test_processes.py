"""Several processes under torchrun do what one does, and end together."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pmsi.runtime.checkpoints import load_checkpoint
from tests.helpers import ranks
from tests.helpers.small_run import Watch, make_backbone, make_fabric

HERE = Path(__file__).parent
SYNCHRONISED = (
    "batch-norm: 4 images on 2 processes need synchronised statistics, which run on GPUs only; set"
    " --batch-norm-images to 2 or less, or to None"
)


def torchrun(*words: str, processes: int = 2, limit: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False, cwd=HERE.parent)


def run_job(folder: Path, job: str) -> subprocess.CompletedProcess[str]:
    return torchrun(str(HERE.parents[1] / "helpers/ranks.py"), str(folder), job)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both processes found."""
    folder = tmp_path_factory.mktemp("two")
    done = run_job(folder, "compare")
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.mark.usefixtures("small_backbone")
def test_two_processes_train_as_one(found: list[dict[str, Any]], tmp_path: Path) -> None:
    """Losses within 0.1 %, test logits within 1 % of their spread: sums differ in order, and 24 steps amplify that."""
    one = ranks.train_all(tmp_path, make_fabric())
    assert list(one) == list(found[0]["runs"])
    for name, alone in one.items():
        for both in (rank["runs"][name] for rank in found):
            for mine, theirs in zip(alone["history"], both["history"], strict=True):
                assert theirs["losses"] == pytest.approx(mine["losses"], rel=1e-3), name
            assert torch.equal(both["statistics"], found[0]["runs"][name]["statistics"]), name  # to the bit
            torch.testing.assert_close(both["statistics"], alone["statistics"], rtol=0.01, atol=1e-3, msg=name)
            spread = alone["logits"].std()
            torch.testing.assert_close(both["logits"], alone["logits"], atol=0.01 * spread, rtol=0, msg=name)
            first, second, _ = alone["logits"].sort(1, descending=True).values.unbind(1)
            clear = first - second > 0.03 * spread
            assert clear.sum() >= 4
            assert torch.equal(both["predictions"][clear], alone["predictions"][clear]), name


def test_every_test_image_is_counted_once(found: list[dict[str, Any]]) -> None:
    alone = ranks.test_counts(make_fabric())
    for count, (accuracy, predictions) in alone.items():
        assert (accuracy, len(predictions)) == (100, count)
        for rank in found:
            assert rank["tests"][count][0] == 100
            assert torch.equal(rank["tests"][count][1], predictions)


def test_what_processes_cannot_do_is_said_by_all(found: list[dict[str, Any]]) -> None:
    for rank, other in ((0, "only here"), (1, "stopped, because another process failed; its message says why")):
        assert found[rank]["refused"] == [
            "all processes must run the same: recipe.lr_new is 0.1 in process 0 and 1.1 in 1",
            "2 processes cannot share batches of 3 equally; change one",
            SYNCHRONISED,
            other,
        ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The history of one process that nobody stops."""
    patch = pytest.MonkeyPatch()
    patch.setattr("pmsi.models.registry.make_backbone", make_backbone)
    trainer = ranks.make_equal_trainer(tmp_path_factory.mktemp("one"), replace(ranks.EQUAL, epochs=4), make_fabric())
    trainer.run(Watch())
    patch.undo()
    return trainer.history


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize(
    ("job", "epochs", "batches"), [pytest.param("kill", 1, 0, marks=pytest.mark.slow), ("stop", 1, 2)]
)
def test_a_process_that_ends_ends_the_job_and_it_goes_on(
    job: str, epochs: int, batches: int, tmp_path: Path, whole: list[dict[str, Any]]
) -> None:
    """Killed: an error within a minute. Asked to stop: all save the mini-batch under way. One process goes on."""
    start = time.perf_counter()
    done = run_job(tmp_path, job)
    assert done.returncode != 0
    assert time.perf_counter() - start < 60
    assert len(re.findall(r"stopped 1 2", done.stdout)) == (2 if job == "stop" else 0)
    state = load_checkpoint(tmp_path / "last.ckpt")
    assert (len(state["history"]), state["epoch"]["done"]) == (epochs, batches)
    trainer = ranks.make_equal_trainer(tmp_path, replace(ranks.EQUAL, epochs=4), make_fabric())
    trainer.run(Watch())
    for mine, alone in zip(trainer.history, whole, strict=True):
        assert mine["losses"] == pytest.approx(alone["losses"], rel=1e-3)


def test_the_command_runs_under_torchrun(photos: Path, tmp_path: Path) -> None:
    """One voice and one result."""
    done = train_photos(photos, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/1") == done.stdout.count("Checkpoint: ") == 1
    assert (tmp_path / "run/result.json").exists()


@pytest.mark.slow
def test_an_error_of_the_command_under_torchrun_is_said_once(tmp_path: Path) -> None:
    refused = train_photos(tmp_path / "nowhere", tmp_path / "run")
    assert refused.returncode != 0
    assert "pmsi: folder: there is no folder" in refused.stderr
    assert "process 1: stopped, because another process failed" in refused.stderr
    assert "pmsi/cli.py" not in refused.stderr  # torchrun's own traceback is all there is


def train_photos(root: Path, run: Path) -> subprocess.CompletedProcess[str]:
    tiny = "--resize 36 --crop 32 --feature-width 16 --hidden-width 8 --batch-size 4 --epochs 1 --freeze-epochs 0"
    tiny += " --lr-backbone 1e-4 --lr-new 1e-3"
    data = ["--data", "folder", "--root", str(root), "--cache", str(run.parent / "kept")]
    return torchrun("-m", "--", "pmsi", "train", "--device", "cpu", *tiny.split(), *data, "--run", str(run))
