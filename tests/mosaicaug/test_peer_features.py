"""Features that other libraries have or lack and this one must have: a test for each row of that table."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mosaicaug import (
    Augmentation,
    CutMix,
    Jigsaw,
    MixUp,
    Plan,
    RecursiveMosaic,
    SnapMix,
    Targets,
    apply,
    apply_boxes,
    apply_keypoints,
    apply_masks,
    cross_entropy,
)
from tests.helpers.oracle import copy_pixels, number_pixels, seeded

ROOT = Path(__file__).parents[2]
TABLE = ROOT.parent / "shared" / "peers.md"
ROWS: set[str] = set()


def look(images: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG001
    return images.float().mean(-3).flatten(1, -3).mean(1) if images.ndim == 5 else images.float().mean(1)


FIVE: dict[str, Callable[..., Augmentation]] = {
    "RecursiveMosaic": lambda **options: RecursiveMosaic(2, **options),
    "Jigsaw": lambda **options: Jigsaw(3, **options),
    "CutMix": CutMix,
    "MixUp": MixUp,
    "SnapMix": lambda **options: SnapMix(cam=look, **options),
}
five = pytest.mark.parametrize("make", FIVE.values(), ids=FIVE.keys())
tiles = pytest.mark.parametrize("make", [FIVE["RecursiveMosaic"], FIVE["Jigsaw"]], ids=["RecursiveMosaic", "Jigsaw"])
mixes = pytest.mark.parametrize("make", [FIVE[name] for name in ("CutMix", "MixUp", "SnapMix")])
Make = Callable[..., Augmentation]


def row(name: str) -> Callable[[Any], Any]:
    """The row of the table that a test is for."""
    ROWS.add(name)
    return lambda test: test


def make_images(dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (6, 3, 22, 27)) -> Tensor:
    values = torch.randint(0, 256, shape, generator=seeded(1), dtype=torch.uint8)
    return values if dtype == torch.uint8 else (values / 255).to(dtype)


def last_plan(aug: Augmentation) -> Plan:
    assert aug.last_plan is not None
    return aug.last_plan


@row("jigsaw")
def test_jigsaw() -> None:
    images, aug = number_pixels((4, 3, 12, 15)), Jigsaw(3)
    got = aug(images)
    assert torch.equal(got, copy_pixels(images, last_plan(aug).to_dict()))
    for before, after in zip(images, got, strict=True):
        cut = [image.unfold(1, 4, 4).unfold(2, 5, 5)[0].flatten(0, 1).flatten(1).tolist() for image in (before, after)]
        assert sorted(cut[0]) == sorted(cut[1]) and cut[0] != cut[1]  # noqa: PT018


@row("recursive / multi-scale mosaic")
def test_recursive_mosaic_has_several_scales() -> None:
    """Each recursion enters one quadrant and leaves three alone, so pieces differ in size at least fourfold."""
    plan = RecursiveMosaic(3).sample((50, 3, 64, 64), generator=seeded(3))
    boxes = torch.tensor([[[0.0, 0, 64, 64]]] * 50)
    placed = apply_boxes(boxes, plan)
    for values, source in zip(*placed, strict=True):
        areas = [int((x1 - x0) * (y1 - y0)) for x0, y0, x1, y1 in values[source >= 0].tolist()]
        assert sum(areas) == 64 * 64
        assert min(areas) >= 8 * 8
        assert max(areas) >= 4 * min(areas)
    assert len(RecursiveMosaic.phases(make_images(), r=3)) == 4


@row("cutmix, mixup")
def test_cutmix_and_mixup() -> None:
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 20, 20).contiguous()
    for aug in (CutMix(), MixUp()):
        mixed, targets = aug(images, torch.arange(6))
        means = targets.weight_a * targets.labels_a + targets.weight_b * targets.labels_b
        assert (mixed.mean((1, 2, 3)) - means).abs().max() < 1e-5
    assert CutMix()(images, torch.arange(6))[0].frac().count_nonzero() == 0  # cut, not blended


@row("snapmix")
def test_snapmix() -> None:
    """Partner of weight 1: all of its map's mass is in the box that comes in."""
    aug, maps = SnapMix(1.0), torch.zeros(6, 20, 20)
    plan = aug.sample((6, 3, 20, 20), generator=seeded(2))
    for image, (partner, box) in enumerate(zip(plan.overlay.tolist(), plan.from_box.tolist(), strict=True)):
        maps[partner, box[0] : box[2], box[1] : box[3]] = 1.0 + image
    targets = aug.targets(plan, torch.arange(6), maps=maps)
    assert isinstance(targets, Targets)
    there = plan.has_overlay & (maps[plan.overlay].amax((1, 2)) > 0)
    assert there.sum() > 3
    assert (targets.weight_b[there] - 1).abs().max() < 1e-5


@row("parameters per sample")
@five
def test_parameters_per_sample(make: Make) -> None:
    plans = [make(per=per).sample((64, 3, 60, 60), generator=seeded(3)) for per in ("sample", "batch")]
    draws = []
    for plan in plans:
        own = plan.tiles - plan.home[:, :1]
        fields = [own, plan.from_box, plan.to_box, plan.opacity[:, None]]
        draws.append(len({tuple(values) for values in torch.cat(fields, 1).tolist()}))
    assert draws[0] > 30
    assert draws[1] == 1


@row("no host sync on the GPU")
@five
def test_nothing_reads_a_value_on_the_device(make: Make) -> None:
    """Tensors of the meta device have no values to wait for. On CUDA: tests/test_cuda.py."""
    images, labels = make_images().to("meta"), torch.arange(6, device="meta")
    made, targets = make()(images, labels)
    assert made.is_meta
    assert (targets.labels_b if isinstance(targets, Targets) else targets).is_meta
    plan = make().sample(images.shape)
    apply_masks(images[:, 0], plan, backend="torch")
    apply_keypoints(torch.zeros(6, 2, 2, device="meta"), plan)
    apply_boxes(torch.zeros(6, 2, 4, device="meta"), plan, pieces="largest")


@row("`torch.compile(fullgraph=True)`")
@five
def test_compiles_as_one_graph(make: Make) -> None:
    torch.compiler.reset()
    aug, images, labels = make(), make_images(), torch.arange(6)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 6))

    def step(images: Tensor, labels: Tensor) -> Tensor:
        made, targets = aug(images, labels)
        return cross_entropy(net(made), targets)

    losses = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(5)
        losses.append(torch.stack([function(images, labels) for _ in range(2)]))
    assert torch.allclose(losses[0], losses[1])


@row("uint8")
@row("bf16 / fp16")
@row("channels_last kept")
@row("5-D video")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(6, 3, 22, 27), (6, 2, 3, 11, 14)])
@pytest.mark.parametrize("channels_last", [False, True])
@five
def test_dtypes_layouts_and_video(
    make: Make, dtype: torch.dtype, shape: tuple[int, ...], channels_last: bool, device: torch.device
) -> None:
    images = make_images(dtype, shape).to(device)
    if channels_last:
        images = images.movedim(-3, -1).contiguous().movedim(-1, -3)
    aug = make()
    made, _ = aug(images, torch.arange(6, device=device))
    assert (made.dtype, made.device, made.stride()) == (images.dtype, images.device, images.stride())
    exact = apply(images.double(), last_plan(aug), backend="torch").cpu()
    step = 0.501 if dtype == torch.uint8 else 2.0 ** (-9 if dtype == torch.bfloat16 else -12) * 1.01
    assert (made.cpu().double() - exact).abs().max() <= step  # rounded once
    if len(shape) == 5:  # one draw for all frames of a clip
        frames = [apply(images[:, time], last_plan(aug)) for time in range(2)]
        assert torch.equal(made, torch.stack(frames, 1))


@row("sizes the grid does not divide")
@pytest.mark.parametrize("size", [(23, 29), (22, 27), (3, 100)])
@tiles
def test_sizes_the_grid_does_not_divide(make: Make, size: tuple[int, int]) -> None:
    if min(size) < make().grid:
        with pytest.raises(ValueError, match="needs images of at least"):
            make()(torch.zeros(1, 1, *size))
        return
    images, aug = number_pixels((3, 2, *size)), make()
    got = aug(images)
    assert got.shape == images.shape
    assert torch.equal(got.flatten(2).sort().values, images.flatten(2))
    assert torch.equal(got, copy_pixels(images, last_plan(aug).to_dict()))


@row("soft labels in")
@mixes
def test_soft_labels_in(make: Make) -> None:
    soft = torch.rand(6, 9, generator=seeded(3)).softmax(1)
    aug = make()
    _, got = aug(make_images(), soft, maps=torch.rand(6, 4, 4, generator=seeded(4)))
    assert got.shape == (6, 9)
    hard, partner = torch.arange(6), last_plan(aug).overlay.long()
    weights = aug.targets(last_plan(aug), hard, maps=torch.rand(6, 4, 4, generator=seeded(4)))
    assert isinstance(weights, Targets)
    want = soft * weights.weight_a[:, None] + soft[partner] * weights.weight_b[:, None]
    apart = partner != hard  # images mixed with themselves have one class for SnapMix
    assert (got - want)[apart].abs().max() < 1e-6


@row("one label contract for all")
@five
def test_one_label_contract_for_all(make: Make) -> None:
    """``(images, labels)`` in and out, and one loss that takes what comes out; weight_a is the image's own share."""
    images, labels, logits = make_images(), torch.tensor([0, 1, 2, 3, 4, 5]), torch.randn(6, 6, generator=seeded(3))
    aug = make()
    made, targets = aug(images, labels)
    assert made.shape == images.shape
    loss = cross_entropy(logits, targets, reduction="none")
    if not aug.mixes:
        assert torch.equal(targets, labels)
    else:
        assert isinstance(targets, Targets)
        assert torch.equal(targets.labels_a, labels)
        log = logits.log_softmax(1)
        want = -targets.weight_a * log[labels, labels] - targets.weight_b * log[labels, targets.labels_b]
        assert (loss - want).abs().max() < 1e-5
        soft = targets.to_soft(6)
        assert (cross_entropy(logits, soft, reduction="none") - loss).abs().max() < 1e-5


@row("masks / boxes / keypoints")
@five
def test_masks_boxes_and_keypoints(make: Make) -> None:
    """A keypoint lands where a mask of its pixel lands, and in the box round that pixel."""
    plan = make().sample((6, 3, 22, 27), generator=seeded(5))
    points = torch.tensor([[[9.0, 4.0]]] * 6)
    masks = torch.zeros(6, 22, 27, dtype=torch.int64)
    masks[:, 4, 9] = torch.arange(1, 7)
    seen, boxes = apply_masks(masks, plan), apply_boxes(torch.cat([points, points + 1], 2), plan, pieces="largest")
    found = apply_keypoints(points, plan)
    assert (found.source >= 0).any()
    for entry, slot in (found.source >= 0).nonzero().tolist():
        x, y = found.values[entry, slot].tolist()
        if bool((plan.opacity == 1).all()) and torch.equal(plan.from_box, plan.to_box):
            assert int(seen[entry, int(y), int(x)]) == int(found.source[entry, slot]) + 1
        x0, y0, x1, y1 = boxes.values[entry, slot].tolist()
        assert x0 - 1 <= x <= x1 + 1
        assert y0 - 1 <= y <= y1 + 1


@row("replay")
@five
def test_replay(make: Make) -> None:
    images, labels, aug = make_images(), torch.arange(6), make()
    made, _ = aug(images, labels)
    logged = json.dumps(last_plan(aug).to_dict())
    assert torch.equal(apply(images, last_plan(aug)), made)
    assert torch.equal(apply(images, Plan.from_dict(json.loads(logged))), made)


@row("inverse")
@tiles
def test_inverse(make: Make) -> None:
    images, aug = make_images(), make()
    assert torch.equal(apply(aug(images), last_plan(aug).invert()), images)


@row("own generator")
@five
def test_own_generator(make: Make) -> None:
    images, labels, state = make_images(), torch.arange(6), torch.get_rng_state()
    one, two = (make()(images, labels, generator=seeded(8))[0] for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(make()(images, labels, generator=seeded(9))[0], one)


@row("same draw on every device")
@five
def test_same_draw_on_every_device(make: Make, device: torch.device) -> None:
    images, labels = make_images(), torch.arange(6)
    want = apply(images, make().sample(images.shape, generator=seeded(3)), backend="torch")
    made, _ = make()(images.to(device), labels.to(device), generator=seeded(3))
    assert torch.equal(made.cpu(), want)


@row("gradients")
@five
def test_gradients(make: Make) -> None:
    images, aug = make_images(torch.float64).requires_grad_(), make()
    made, _ = aug(images, torch.arange(6))
    weight = torch.rand(made.shape, generator=seeded(3), dtype=torch.float64)
    [gradient] = torch.autograd.grad((made * weight).sum(), images)
    step = torch.rand(images.shape, generator=seeded(4), dtype=torch.float64)
    moved = apply(images.detach() + step, last_plan(aug)) - apply(images.detach(), last_plan(aug))
    assert math.isclose(float((gradient * step).sum()), float((moved * weight).sum()), rel_tol=1e-9)
    assert gradient.abs().sum() > 1


@row("odd batch, batch of 1")
@pytest.mark.parametrize("batch", [1, 7])
@five
def test_odd_batch_and_batch_of_1(make: Make, batch: int, device: torch.device) -> None:
    images, labels = make_images(shape=(batch, 3, 22, 27)).to(device), torch.arange(batch, device=device)
    made, targets = make()(images, labels)
    assert made.shape == images.shape
    assert len(targets[0] if isinstance(targets, Targets) else targets) == batch
    if batch == 1 and not isinstance(make(), (Jigsaw, RecursiveMosaic, SnapMix)):
        assert (made - images).abs().max() < 1e-6  # its own partner


@row("published GPU throughput of these")
def test_gpu_throughput_is_published() -> None:
    """Figures of docs/benchmarks.md come from result files, each with its device's name."""
    files = [
        json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "bench/results").glob("throughput-*.json")
    ]
    on_gpu = [file for file in files if file["device_type"] == "cuda"]
    page = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    if not on_gpu:
        assert "**GPU**: not measured yet." in page
        pytest.skip("no GPU has been measured yet: make gpu-check")
    assert "**GPU**: not measured yet." not in page


@row("licence")
def test_licence_is_free() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert re.search(r"Apache License\s+Version 2\.0", text)
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.skipif(not TABLE.exists(), reason="the table of other libraries' features is not here")
def test_every_row_of_the_table_has_a_test() -> None:
    text = TABLE.read_text(encoding="utf-8").split("## 1.")[1].split("## 2.")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    wanted = {cells[0] for cells in rows[2:] if cells[-1] in ("Y", "free")}
    assert rows[0][-1] == "ours must"
    assert len(wanted) > 20
    assert wanted <= ROWS
