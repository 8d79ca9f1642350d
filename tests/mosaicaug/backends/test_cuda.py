"""GPU alone: nothing waits for it, graphs replay with new plans, and offsets reach beyond 32 bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mosaicaug import (
    CutMix,
    Jigsaw,
    MixUp,
    PlanBuffer,
    RecursiveMosaic,
    SnapMix,
    apply,
    apply_boxes,
    apply_keypoints,
    apply_masks,
)
from pmsi.recipe import Method
from pmsi.runtime.devices import open_fabric
from pmsi.runtime.session import Session
from pmsi.training.batches import plan_epoch
from tests.helpers.oracle import number_pixels
from tests.helpers.small_run import RECIPE, Watch, make_dataset, make_trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")

AUGMENTATIONS = [RecursiveMosaic(3), Jigsaw(4), CutMix(), MixUp(), SnapMix(1.0)]
SHAPE = (8, 3, 64, 64)


@pytest.fixture
def sync_mode() -> Iterator[None]:
    """Whatever a test says of waiting for the GPU, the next may wait again."""
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("sync_mode")
@pytest.mark.parametrize("aug", AUGMENTATIONS, ids=lambda aug: aug.name)
def test_nothing_waits_for_the_gpu(aug: Any) -> None:
    images, labels = torch.rand(SHAPE, device="cuda"), torch.arange(8, device="cuda")
    options = {"maps": torch.rand(8, 7, 7, device="cuda")} if isinstance(aug, SnapMix) else {}
    aug(images, labels, **options)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    aug(images, labels, **options)
    RecursiveMosaic.phases(images, r=3)
    plan = aug.sample((8, 3, 56, 56))
    apply(
        images,
        plan,
        index=torch.arange(8),
        window=torch.tensor([[1, 2, 1]] * 8),
        mean=[0.5] * 3,
        std=[0.25] * 3,
        dtype=torch.bfloat16,
    )


@pytest.mark.usefixtures("sync_mode")
@pytest.mark.parametrize("aug", AUGMENTATIONS, ids=lambda aug: aug.name)
def test_annotations_do_not_wait_either(aug: Any) -> None:
    """But for all pieces of boxes, whose number is a value on the GPU."""
    plan = aug.sample(SHAPE)
    masks = torch.randint(0, 9, (8, 64, 64), device="cuda")
    points = torch.rand(8, 5, 2, device="cuda") * 63
    apply_masks(masks, plan)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    apply_masks(masks, plan)
    apply_keypoints(points, plan)
    apply_boxes(torch.cat([points, points + 1], 2), plan, pieces="largest")


@pytest.mark.parametrize("aug", AUGMENTATIONS, ids=lambda aug: aug.name)
def test_a_graph_replays_with_new_plans(aug: Any) -> None:
    images = number_pixels(SHAPE).cuda()
    plans = [aug.sample(SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    buffer = PlanBuffer(plans[0], "cuda")
    out = torch.empty_like(images)
    apply(images, buffer, out=out)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        apply(images, buffer, out=out)
    for plan in plans:
        buffer.copy_(plan)
        graph.replay()
        assert torch.equal(out, apply(images, plan))


def test_a_graph_refuses_what_is_on_the_cpu() -> None:
    images, plan = torch.rand(SHAPE, device="cuda"), Jigsaw(4).sample(SHAPE)
    apply(images, plan)
    with (
        pytest.raises(ValueError, match=r"apply: a CUDA graph reads fixed memory.*plan"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        apply(images, plan)


def test_one_launch_per_call() -> None:
    images = torch.rand(SHAPE, device="cuda")
    for call in (lambda: RecursiveMosaic(3)(images), lambda: RecursiveMosaic.phases(images, r=3)):
        call()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            call()
            torch.cuda.synchronize()
        kernels = [event.name for event in profile.events() if event.device_type.name == "CUDA"]
        assert [name for name in kernels if "Memcpy" not in name and "Memset" not in name] == ["_apply_plan_kernel"]
        assert len([name for name in kernels if "Memcpy" in name]) == 1


def test_offsets_beyond_32_bits() -> None:
    """A data set of more than 2**31 elements; its last image is told from one that is 2**32 bytes before."""
    if torch.cuda.get_device_properties(0).total_memory < 8 * 2**30:
        pytest.skip("needs 8 GiB of GPU memory")
    stored = torch.zeros(2**31 // (3 * 256 * 256) + 10, 3, 256, 256, dtype=torch.uint8, device="cuda")
    last = len(stored) - 1
    stored[last] = torch.randint(1, 256, stored.shape[1:], dtype=torch.uint8, device="cuda")
    plan = RecursiveMosaic(2).sample((4, 3, 224, 224))
    window = torch.tensor([[3, 5, 1]] * 4)
    got = apply(stored, plan, index=torch.tensor([last, 0, last, 1]), window=window)
    want = apply(stored[[last, 0]].clone(), plan, index=torch.tensor([0, 1, 0, 1]), window=window)
    assert torch.equal(got, want)


def test_memory_beside_input_and_output() -> None:
    """Peak memory: at most the plan and 1 MiB for 32 images."""
    images = torch.rand(32, 3, 448, 448, device="cuda")
    out = torch.empty_like(images)
    for aug in AUGMENTATIONS:
        plan = aug.sample(images.shape)
        apply(images, plan, out=out)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        apply(images, plan, out=out)
        assert torch.cuda.max_memory_allocated() - before <= 2**20


@pytest.mark.usefixtures("sync_mode", "small_backbone")
@pytest.mark.parametrize("precision", ["32", "bf16", "fp16"])
@pytest.mark.parametrize("method", ["none", "cutmix", "mixup", "snapmix", "jigsaw", "rmg"])
def test_a_mini_batch_of_training_does_not_wait_for_the_gpu(tmp_path: Path, method: Method, precision: Any) -> None:
    """Mini-batch from stored images to the bar's losses, in every precision; its losses are close to the CPU's."""
    recipe = replace(RECIPE, augmentation=method, dropout=0.0, resize=68, crop=64)
    dataset, session = make_dataset(side=68), Session(open_fabric("cuda", precision))
    trainer = make_trainer(tmp_path / "gpu", recipe, dataset=dataset, session=session)
    on_cpu = make_trainer(tmp_path / "cpu", recipe, dataset=dataset)
    first, *others = plan_epoch(recipe, dataset.train.labels, seed=0, epoch=0)
    for one in (trainer, on_cpu):
        one.objective.train()
    torch.testing.assert_close(trainer.step(first).cpu(), on_cpu.step(first), rtol=0.05, atol=0.02)
    trainer.epoch.add(trainer.step(others[0]))
    torch.cuda.set_sync_debug_mode("error")
    for iteration in others:
        trainer.epoch.add(trainer.step(iteration))
        trainer.schedule.step()
        trainer.epoch.latest_losses()


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("precision", ["32", "bf16", "fp16"])
def test_a_run_on_a_gpu_trains_tests_saves_and_goes_on(tmp_path: Path, precision: Any) -> None:
    session = Session(open_fabric("cuda", precision))
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, RECIPE, session=session).run(Watch((2, 1)))
    trainer = make_trainer(tmp_path, RECIPE, session=session)
    assert len(trainer.history) == 1
    trainer.run(Watch())
    speed = trainer.history[-1]["speed"]
    assert speed["images"] == "cuda:0"
    assert 0 < speed["input_share"] < 1
    assert speed["memory_gb"] > 0


@pytest.mark.usefixtures("small_backbone")
def test_images_in_host_memory_train_as_those_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    histories = []
    for free in (2**40, 1):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, free))
        trainer = make_trainer(tmp_path / str(free), RECIPE, session=Session(open_fabric("cuda", "32")))
        trainer.run(Watch())
        histories.append(trainer.history)
    assert [history[0]["speed"]["images"] for history in histories] == ["cuda:0", "host memory"]
    for one, other in zip(*histories, strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-3)


@pytest.mark.usefixtures("small_backbone")
def test_a_batch_that_does_not_fit_a_gpu_is_one_line(tmp_path: Path) -> None:
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        recipe = replace(RECIPE, resize=512, crop=512, batch_size=256, epochs=1)
        dataset = make_dataset(side=512, train_images=256)
        trainer = make_trainer(tmp_path, recipe, dataset=dataset, session=Session(open_fabric("cuda", "32")))
        with pytest.raises(
            ValueError, match=r"256 images of 512 px a step do not fit .*; set --batch-size to \d+ or less"
        ):
            trainer.run(Watch())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
