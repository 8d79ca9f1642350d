"""GPU alone: nothing waits for it, graphs replay with new plans, and offsets reach beyond 32 bits."""

from __future__ import annotations

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
from tests.helpers.oracle import number_pixels

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")

AUGMENTATIONS = [RecursiveMosaic(3), Jigsaw(4), CutMix(), MixUp(), SnapMix(1.0)]
SHAPE = (8, 3, 64, 64)


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
