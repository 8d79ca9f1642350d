"""The gates of the benchmark accept every side that does what its case says, and reject whatever does not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.measure import Run
from bench.throughput import gates
from bench.throughput.batch import MEAN, STD, Batch, UnfitError
from bench.throughput.cases import LEVELS, PEERS, Case, centre, list_pairs
from bench.throughput.laws import GateError
from bench.throughput.sides import loops, make_run, read_images

SIZE = 64  # px of what the gates look at here
ONCE = ("torchvision", "loop")  # sides that draw once per batch


def can_run(case: Case, side: str) -> bool:
    if side in ONCE and case.per == "sample":
        return False
    if case.task == "pipeline":
        return (side, case.augmentation) not in {("kornia", "rmg"), ("torchvision", "rmg"), ("torchvision", "jigsaw")}
    whole = case.augmentation == "mixup"  # blended, so floating
    return case.dtype != "uint8" or not (side == "kornia" or (whole and side in ("torchvision", "timm")))


GATED = [
    pytest.param(case, side, id=f"{case.name}-{side}")
    for case, side in list_pairs("cpu")
    if (case.batch, case.size, case.level) == (32, 448, LEVELS.get(case.augmentation))
    if case.task != "draw" and can_run(case, side)
]


@pytest.mark.parametrize(("case", "side"), GATED)
def test_every_side_passes_its_gate(case: Case, side: str) -> None:
    try:
        gates.check_side(case, side, "cpu", size=SIZE)
    except UnfitError as reason:
        assert "is not installed" in str(reason)  # noqa: PT017
        pytest.skip(str(reason))


@pytest.mark.parametrize(
    ("case", "side", "reason"),
    [
        (centre("jigsaw"), "loop", "the published loop draws once per batch"),
        (centre("cutmix"), "torchvision", "torchvision draws once per batch"),
        (centre("jigsaw", dtype="uint8"), "kornia", "Kornia takes floating images only"),
        (centre("cutmix", dtype="bfloat16"), "dali", "DALI has no bfloat16 here"),
        (centre("cutmix", batch=3), "timm", "timm needs an even batch"),
        (centre("rmg", task="pipeline"), "kornia", "Kornia has no such augmentation"),
        (centre("rmg", task="pipeline", per="batch"), "torchvision", "torchvision has no such augmentation"),
    ],
)
def test_a_side_says_what_it_cannot_do(case: Case, side: str, reason: str) -> None:
    images = torch.zeros(case.batch, 3, 8, 8, dtype=case.torch_dtype)
    with pytest.raises(UnfitError) as caught:
        make_run(case, side, Batch(images, torch.zeros(case.batch).long(), torch.ones(case.batch, 2, 2)))
    if "is not installed" in str(caught.value):
        pytest.skip(str(caught.value))
    assert str(caught.value) == reason


def test_a_library_that_is_not_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    with pytest.raises(UnfitError, match=r"^Kornia is not installed$"):
        make_run(centre("jigsaw", batch=1), "kornia", Batch(torch.zeros(1, 3, 8, 8), torch.zeros(1), torch.zeros(1)))


# What breaks a law: each takes what our side made, and the images that it was made from.


def keep(made: Tensor, images: Tensor) -> Tensor:  # noqa: ARG001
    return images.clone()


def repeat_a_tile(made: Tensor, images: Tensor) -> Tensor:  # noqa: ARG001
    made[1, :, :8, :8] = made[1, :, 8:16, 8:16]
    return made


def move_a_pixel(made: Tensor, images: Tensor) -> Tensor:  # noqa: ARG001
    made[2, :, 9, 9] = made[2, :, 9, 10]
    return made


def tear_a_tile(made: Tensor, images: Tensor) -> Tensor:  # noqa: ARG001
    made[0, :, :4, :8], made[0, :, 8:12, :8] = made[0, :, 8:12, :8].clone(), made[0, :, :4, :8].clone()
    return made


def mix_channels(made: Tensor, images: Tensor) -> Tensor:  # noqa: ARG001
    made[3, 0] = made[3, 0] + 0.5
    return made


def take_another_image(made: Tensor, images: Tensor) -> Tensor:  # noqa: ARG001
    return made.roll(1, 0)


def shift(made: Tensor, images: Tensor) -> Tensor:  # noqa: ARG001
    return made.roll(1, -1)


def flip(made: Tensor, images: Tensor) -> Tensor:  # noqa: ARG001
    return made.flip(-1)


def crop(made: Tensor, images: Tensor) -> Tensor:  # noqa: ARG001
    return made[..., 1:, :]


def paste_two_boxes(made: Tensor, images: Tensor) -> Tensor:
    made[:] = images
    made[0, :, 2:5, 2:5] = images[1, :, 2:5, 2:5]
    made[0, :, 20:25, 2:5] = images[1, :, 20:25, 2:5]
    return made


def paste_two_partners(made: Tensor, images: Tensor) -> Tensor:
    made[:] = images
    made[0, :, 2:5, 2:5] = images[1, :, 2:5, 2:5]
    made[0, :, 5:9, 2:5] = images[2, :, 5:9, 2:5]
    return made


def paste_from_elsewhere(made: Tensor, images: Tensor) -> Tensor:
    made[:] = images
    made[0, :, 2:9, 2:9] = images[1, :, 3:10, 2:9]
    return made


def darken(made: Tensor, images: Tensor) -> Tensor:  # noqa: ARG001
    return made * 0.95


def blend_three(made: Tensor, images: Tensor) -> Tensor:
    return 0.8 * made + 0.2 * images.roll(1, 0).flip(-1)


def extrapolate(made: Tensor, images: Tensor) -> Tensor:  # noqa: ARG001
    return 1.5 * images - 0.5 * images.roll(1, 0)


def truncate(made: Tensor, images: Tensor) -> Tensor:
    return (0.7 * images + 0.3 * images.roll(1, 0)).to(made.dtype)


def resample(made: Tensor, images: Tensor, **how: Any) -> Tensor:
    made[:] = images
    made[0, :, 5:25, 8:40] = F.interpolate(images[1:2, :, 30:60, 3:19], size=(20, 32), **how)[0]
    return made


def resample_by_nearest(made: Tensor, images: Tensor) -> Tensor:
    return resample(made, images, mode="nearest")


def resample_without_corners(made: Tensor, images: Tensor) -> Tensor:
    return resample(made, images, mode="bilinear", align_corners=False)


def scale_twice(made: Tensor, images: Tensor) -> Tensor:  # noqa: ARG001
    return made / 255


WRONG = [
    ("rmg", keep, "nothing was changed"),
    ("rmg", repeat_a_tile, "a tile is missing or occurs twice"),
    ("jigsaw", repeat_a_tile, "a tile is missing or occurs twice"),
    ("jigsaw", move_a_pixel, "pixels moved inside a tile"),
    ("jigsaw", tear_a_tile, "a tile was torn apart"),
    ("jigsaw", mix_channels, "a pixel is not a stored one"),
    ("jigsaw", take_another_image, "a pixel comes from another image"),
    ("jigsaw", shift, "pixels moved inside a tile"),
    ("jigsaw", flip, "pixels moved inside a tile"),
    ("jigsaw", crop, "made images of"),
    ("cutmix", keep, "nothing was changed"),
    ("cutmix", take_another_image, "all images of a batch share one draw|not one box"),
    ("cutmix", paste_two_boxes, "not one box of one partner"),
    ("cutmix", paste_two_partners, "not one box of one partner"),
    ("cutmix", paste_from_elsewhere, "a pixel is not at its own place"),
    ("cutmix", flip, "a pixel is not at its own place"),
    ("mixup", keep, "nothing was changed"),
    ("mixup", darken, "no blend of two with weights of sum 1"),
    ("mixup", blend_three, "no blend of two"),
    ("mixup", extrapolate, "the partner's weight is -0.5"),
    ("snapmix", keep, "nothing was changed"),
    ("snapmix", paste_two_boxes, "more than one source"),
    ("snapmix", paste_two_partners, "more than one source"),
    ("snapmix", resample_by_nearest, "not resampled evenly"),
    ("snapmix", resample_without_corners, "not resampled evenly|not pixels of the partner"),
]


def spoil(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Case, Batch], Run]:
    """Our side, its output changed."""

    def make(case: Case, batch: Batch) -> Run:
        run = make_run(case, "ours", batch)
        return lambda: change(read_images(run()), batch.images)

    return make


def instead(**changes: Any) -> Callable[[Case, Batch], Run]:
    """Our side of another case."""
    return lambda case, batch: make_run(replace(case, **changes), "ours", batch)


@pytest.mark.parametrize(("name", "change", "message"), WRONG)
def test_gates_reject(name: str, change: Callable[[Tensor, Tensor], Tensor], message: str) -> None:
    with pytest.raises(GateError, match=message):
        gates.check_runs(centre(name), "cpu", spoil(change), size=SIZE)


@pytest.mark.parametrize("name", ["rmg", "jigsaw", "cutmix"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (scale_twice, "a pixel is not a stored one"),
        (shift, "moved inside a tile|does not show through one window"),
        (crop, "made images of"),
    ],
)
def test_gates_of_pipelines_reject(name: str, change: Callable[[Tensor, Tensor], Tensor], message: str) -> None:
    with pytest.raises(GateError, match=message):
        gates.check_runs(centre(name, task="pipeline"), "cpu", spoil(change), size=SIZE)


@pytest.mark.parametrize("name", ["jigsaw", "cutmix"])
def test_a_pipeline_that_always_crops_the_middle_is_seen(name: str) -> None:
    def make(case: Case, batch: Batch) -> Run:
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        edge = (batch.images.shape[-1] - case.size) // 2
        images = batch.images[:4, :, edge : edge + case.size, edge : edge + case.size].contiguous()
        run = make_run(replace(case, task="augment"), "ours", replace(batch, images=images))
        return lambda: (read_images(run()).float() - mean) / std

    with pytest.raises(GateError, match="crops or flips never vary"):
        gates.check_runs(centre(name, task="pipeline"), "cpu", make, size=SIZE)


def test_the_gate_of_a_blend_knows_truncation_from_rounding() -> None:
    with pytest.raises(GateError, match="no blend of two"):
        gates.check_runs(centre("mixup", dtype="uint8", per="batch"), "cpu", spoil(truncate), size=SIZE)


def test_a_mosaic_is_more_than_a_permutation() -> None:
    with pytest.raises(GateError, match="quadrant"):
        gates.check_runs(centre("rmg"), "cpu", instead(augmentation="jigsaw", level=8), size=SIZE)


@pytest.mark.parametrize("name", PEERS)
def test_gates_know_who_draws_once(name: str) -> None:
    with pytest.raises(GateError, match="all images of a batch share one draw"):
        gates.check_runs(centre(name), "cpu", instead(per="batch"), size=SIZE)
    with pytest.raises(GateError, match="draws differ within a batch"):
        gates.check_runs(centre(name, per="batch"), "cpu", instead(per="sample"), size=SIZE)


def test_a_copy_is_a_copy() -> None:
    with pytest.raises(GateError, match="the copy differs"):
        gates.check_runs(centre("rmg"), "cpu", lambda _, batch: lambda: batch.images + 1, size=SIZE, copies=True)


def test_the_loop_of_jigsaw_is_one_cycle() -> None:
    """As published: star transpositions, each once, make one cycle through all cells."""
    for _ in range(5):
        order = loops.swap_cells(torch.arange(16).view(1, 1, 4, 4), 4).flatten().tolist()
        cell, length = order[0], 1
        while cell:
            cell, length = order[cell], length + 1
        assert length == 16
