"""How a run is computed: precision, compiled phases, groups of batch-norm, memory, the profile, and who watches."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from mosaicaug import Targets
from pmsi.cli.commands import main
from pmsi.cli.console import Screen
from pmsi.data.preprocess import preprocess
from pmsi.data.storage import make_store
from pmsi.evaluation.accuracy import evaluate
from pmsi.models.base import Logits
from pmsi.runtime.devices import input_dtype, open_fabric
from pmsi.runtime.profiler import Profile
from pmsi.training.batchnorm import GhostBatchNorm, share_statistics
from pmsi.training.callbacks import TensorBoard
from pmsi.training.epoch import Clock, EpochState
from pmsi.training.memory import is_out_of_memory, largest_batch, measure_peak
from tests.helpers.small_run import BATCHES, RECIPE, Watch, make_dataset, make_session, make_trainer

CPU = torch.device("cpu")


# Precision


@pytest.mark.usefixtures("small_backbone")
def test_bf16_computes_in_bf16_and_keeps_label_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session("bf16")
    assert input_dtype(session.fabric) == torch.bfloat16
    assert input_dtype(open_fabric("cpu")) == torch.float32
    trainer = make_trainer(tmp_path, replace(RECIPE, augmentation="mixup", mixup_p=1.0, per="sample"), session=session)
    seen: dict[str, Any] = {}
    loss = trainer.network.loss

    def listen(images: Tensor, targets: Tensor | Targets, output: int | None = None) -> Tensor:
        seen.update(images=images.dtype, targets=targets)
        return loss(images, targets, output)

    monkeypatch.setattr(trainer.network, "loss", listen)
    trainer.network.get_submodule("smooth.0").register_forward_hook(lambda _, __, out: seen.update(inside=out.dtype))
    trainer.run(Watch())
    assert (seen["images"], seen["inside"]) == (torch.bfloat16, torch.bfloat16)
    weights = seen["targets"].weight_b
    assert weights.dtype == torch.float32
    assert not torch.equal(weights, weights.bfloat16().float())
    assert {value.dtype for value in trainer.network.state_dict().values()} == {torch.float32, torch.int64}
    assert all(math.isfinite(one) for one in trainer.history[-1]["losses"])


@pytest.mark.usefixtures("small_backbone")
def test_precision_belongs_to_the_run(tmp_path: Path) -> None:
    make_trainer(tmp_path).run(Watch())
    with pytest.raises(ValueError, match="precision is '32-true' there, 'bf16-mixed' was asked for"):
        make_trainer(tmp_path, session=make_session("bf16"))


def test_what_this_machine_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="--precision fp16: needs a CUDA device; choose bf16 or 32"):
        open_fabric("cpu", "fp16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="--device cuda: this machine cannot offer it"):
        open_fabric("cuda", "32")


# Compiled phases


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("method", ["rmg", "cutmix"])
def test_compiled_phases_train_as_eager_ones(tmp_path: Path, method: Any) -> None:
    """Losses of a first epoch within 1e-4: dropout, whose draws a compiler makes its own way, is off."""
    recipe = replace(RECIPE, augmentation=method, dropout=0.0, epochs=1, lr_backbone=1e-4, lr_new=1e-3)
    eager, compiled = (make_trainer(tmp_path / str(c), recipe, session=make_session(compile=c)) for c in (False, True))
    for trainer in (eager, compiled):
        trainer.run(Watch())
    assert compiled.history[0]["losses"] == pytest.approx(eager.history[0]["losses"], rel=1e-4)
    assert compiled.objective is not compiled.network
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs >= 4  # one for each phase, at the least


# Batch-norm in groups


@pytest.mark.parametrize("shape", [(12, 5, 3, 4), (12, 5)])
def test_ghost_batch_norm_is_batch_norm_of_each_group(shape: tuple[int, ...]) -> None:
    x, groups = torch.randn(shape) * 3 + 1, 3
    norm = nn.BatchNorm2d(5) if len(shape) == 4 else nn.BatchNorm1d(5)
    nn.init.normal_(norm.weight)
    ghost = GhostBatchNorm(norm, groups)
    wanted = torch.cat([F.batch_norm(part, None, None, norm.weight, norm.bias, training=True) for part in x.chunk(3)])
    torch.testing.assert_close(ghost(x), wanted)
    alone = type(norm)(5)  # sees the first group alone
    alone(x[:4])
    torch.testing.assert_close(ghost.running_mean, alone.running_mean)
    torch.testing.assert_close(ghost.running_var, alone.running_var)
    assert ghost.num_batches_tracked == 1
    assert list(ghost.state_dict()) == list(norm.state_dict())
    torch.testing.assert_close(ghost.eval()(x), F.batch_norm(x, alone.running_mean, alone.running_var, norm.weight))


def test_groups_that_do_not_fit() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3))
    share: dict[str, Any] = {"batch": 12, "device": "cpu"}
    assert share_statistics(network, None, **share, processes=2) is network
    assert share_statistics(network, 6, **share, processes=2) is network
    assert not isinstance(network[0], GhostBatchNorm)
    share_statistics(network, 3, **share, processes=2)
    assert isinstance(network[0], GhostBatchNorm)
    assert network[0].groups == 2
    with pytest.raises(ValueError, match="groups of 4 images do not fill a process's 6"):
        share_statistics(network, 4, **share, processes=2)
    with pytest.raises(ValueError, match="4 images are no whole number of processes with 3"):
        share_statistics(network, 4, **share, processes=4)
    with pytest.raises(ValueError, match="6 images on 2 processes need synchronised statistics"):
        share_statistics(network, 6, **share, processes=4)


@pytest.mark.usefixtures("small_backbone")
def test_the_recipe_groups_batch_norm(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, replace(RECIPE, batch_norm_images=2))
    norms = [m for m in trainer.network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(norm, GhostBatchNorm) and norm.groups == 2 for norm in norms)
    assert {norm.momentum for norm in norms} == {0.01, RECIPE.batch_norm_momentum}
    with pytest.raises(ValueError, match="batch_size must be a multiple of batch_norm_images, got 4 and 3"):
        replace(RECIPE, batch_norm_images=3)


# Memory


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


def test_other_errors_are_not_taken_for_memory() -> None:
    def attempt(_: int) -> None:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        largest_batch(32, attempt)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert is_out_of_memory(torch.OutOfMemoryError("full"))


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
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    # Of what the failed step held, torch does not give all back once the host has nothing left: any advice may follow.
    assert line.startswith("256 images of 256 px a step do not fit in the memory of cpu, ")
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


def test_peak_memory_of_the_process_is_told() -> None:
    before = measure_peak(CPU)
    held = torch.ones(int(before * 1e9) // 4 + 100_000_000)
    assert measure_peak(CPU) - before >= 0.3
    assert held.sum() > 0


# What is measured and shown


def test_a_clock_adds_up_what_passes_within(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 1.5, 7.0, 9.0])
    monkeypatch.setattr("pmsi.training.epoch.time.perf_counter", lambda: next(times))
    clock = Clock(CPU, seconds=10.0)
    for _ in range(2):
        with clock:
            pass
    assert clock.read() == 12.5


def test_an_epoch_tells_mean_losses_so_far() -> None:
    epoch = EpochState(2, CPU, done=2, losses=[2.0, 6.0])
    epoch.add(torch.tensor([4.0, 0.0]))
    assert epoch.latest_losses() == [2.0, 2.0]


@pytest.mark.usefixtures("small_backbone")
def test_speed_is_measured_and_told(tmp_path: Path) -> None:
    out = StringIO()
    with Screen(Console(file=out, width=200)) as screen:
        trainer = make_trainer(tmp_path)
        trainer.run(screen.watch("mine", RECIPE))
    lines = [line for line in out.getvalue().splitlines() if line.strip()]
    assert len(lines) == 2
    for line, record in zip(lines, trainer.history, strict=True):
        speed = record["speed"]
        assert speed["images"] == "cpu"
        assert 0 < speed["input_share"] < 1
        assert speed["images_per_second"] == pytest.approx(12 / record["seconds"], rel=0.5)
        assert 0.1 < speed["memory_gb"] < 64
        assert f"{100 * speed['input_share']:.1f} % of it input" in line
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[1]) == trainer.history[1]


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize(("method", "made", "share"), [("rmg", 4, 1), ("snapmix", 2, 0.5)])
def test_waiting_for_input_is_counted_as_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any, made: int, share: float
) -> None:
    """A clock that ticks a second whenever a batch is made, and never else; what SnapMix looks at is no input."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def tick(*words: Any, **options: Any) -> Tensor:
        now[0] += 1
        return preprocess(*words, **options)

    monkeypatch.setattr("pmsi.training.inputs.preprocess", tick)
    trainer = make_trainer(tmp_path, replace(RECIPE, epochs=1, augmentation=method))
    trainer.run(Watch())
    assert trainer.history[0]["seconds"] == made * BATCHES
    assert trainer.history[0]["speed"]["input_share"] == share


@pytest.mark.usefixtures("small_backbone")
def test_bars_show_the_whole_run(tmp_path: Path) -> None:
    screen = Screen(Console(file=StringIO(), width=200))
    watch = screen.watch("mine", RECIPE)
    seen: list[tuple[float, float | None, str]] = []
    batch = watch.on_batch

    def listen(done: int, total: int, losses: Sequence[float]) -> None:
        batch(done, total, losses)
        (task,) = screen.bars.tasks
        seen.append((task.completed, task.total, task.fields["losses"]))

    watch.on_batch = listen  # type: ignore[method-assign]
    make_trainer(tmp_path).run(watch)
    assert [(done, total) for done, total, _ in seen] == [(k, 6) for k in range(1, 7)]
    assert all(text.startswith("loss ") and len(text.split()) == 5 for *_, text in seen)


@pytest.mark.usefixtures("small_backbone")
def test_tensorboard_holds_one_point_an_epoch(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe = replace(RECIPE, epochs=3)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, recipe).run(
            Stop(TensorBoard(tmp_path, Screen(Console(quiet=True)).watch("", recipe)), 1)
        )
    trainer = make_trainer(tmp_path, recipe)
    trainer.run(TensorBoard(tmp_path, Screen(Console(quiet=True)).watch("", recipe)))
    events = reader.EventAccumulator(str(tmp_path))
    events.Reload()
    for name, wanted in (("accuracy/mix", "mix"), ("accuracy/concat", "concat")):
        assert [(e.step, e.value) for e in events.Scalars(name)] == [
            (record["epoch"], pytest.approx(record[wanted])) for record in trainer.history
        ]
    assert {f"loss/phase {k}" for k in range(1, 5)} <= set(events.Tags()["scalars"])


class Stop:
    """Passes on, and presses Ctrl-C after so many epochs."""

    def __init__(self, watch: Any, epochs: int) -> None:
        self.watch, self.epochs = watch, epochs

    def on_batch(self, done: int, total: int, losses: Sequence[float]) -> None:
        self.watch.on_batch(done, total, losses)

    def on_epoch(self, record: dict[str, Any]) -> None:
        self.watch.on_epoch(record)
        if record["epoch"] == self.epochs:
            raise KeyboardInterrupt


@pytest.mark.usefixtures("small_backbone")
def test_a_profile_says_where_the_time_goes(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, replace(RECIPE, batch_size=2, epochs=2), dataset=make_dataset(train_images=6))
    with Profile(tmp_path / "profile.json", CPU) as profile:
        trainer.run(Watch(), profile)
    table = profile.make_table()
    shown: list[list[Any]] = [list(column.cells) for column in table.columns]
    parts = dict(zip(shown[0], zip(*shown[1:], strict=True), strict=True))
    assert {"input", "forward", "backward", "update"} <= set(shown[0][:4])
    assert sum(float(parts[name][1]) for name in shown[0][:4]) == pytest.approx(100, abs=0.3)
    assert {name: parts[name][2] for name in ("forward", "backward", "update")} == dict.fromkeys(
        ("forward", "backward", "update"), "4"
    )
    assert any("conv" in name for name in shown[0][4:])
    assert "pmsi: forward" in (tmp_path / "profile.json").read_text()


@pytest.mark.usefixtures("small_backbone")
def test_the_command_ends_with_a_line_for_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = "--resize 36 --crop 32 --feature-width 16 --hidden-width 8 --batch-size 64 --epochs 1 --device cpu"
    words = [*tiny.split(), "--run", str(tmp_path / "run")]
    assert main(["train", *words, "--profile"]) == 0
    said = capsys.readouterr().out
    end = json.loads(said.splitlines()[-1])
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert {name: end[name] for name in ("concat", "mix", "stages")} == {
        name: result[name] for name in ("concat", "mix", "stages")
    }
    assert Path(end["checkpoint"]).exists()
    assert "Where the time of a step goes" in said
    assert main(["evaluate", end["checkpoint"], "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["mix"] == end["mix"]


def test_a_test_can_be_interrupted_between_mini_batches() -> None:
    """As often on every process, whether it has images or not."""
    called: list[None] = []
    dataset = make_dataset()

    class Zero(nn.Module):
        def forward(self, images: Tensor) -> Logits:
            return Logits((), torch.zeros(len(images), 3))

    evaluate(Zero(), make_store(dataset.test, CPU), RECIPE, make_session(), pause=lambda: called.append(None))
    assert len(called) == 2  # of 6 images, 4 at a time
