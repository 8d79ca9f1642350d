"""The laws of the augmentations reject every output that breaks them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor

from bench.measure import Run
from bench.throughput import gates
from bench.throughput.batch import Batch
from bench.throughput.cases import Case, centre
from bench.throughput.laws import GateError
from bench.throughput.sides import make_run, read_images

SIZE = 64  # px of what the gates look at here


# Each breaks a law: it takes the output of our side, and the images that it was made from.


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


def test_the_gate_of_a_blend_knows_truncation_from_rounding() -> None:
    with pytest.raises(GateError, match="no blend of two"):
        gates.check_runs(centre("mixup", dtype="uint8", per="batch"), "cpu", spoil(truncate), size=SIZE)


def test_a_mosaic_is_more_than_a_permutation() -> None:
    def make(case: Case, batch: Batch) -> Run:
        return make_run(replace(case, augmentation="jigsaw", level=8), "ours", batch)

    with pytest.raises(GateError, match="quadrant"):
        gates.check_runs(centre("rmg"), "cpu", make, size=SIZE)
