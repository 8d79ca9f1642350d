"""Pixels: copies carry the oracle's very bits; where there is arithmetic the bound stands beside the test."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from mosaicaug import CutMix, Jigsaw, MixUp, Plan, RecursiveMosaic, SnapMix, apply, apply_masks, mix_labels
from tests.helpers.oracle import DTYPES, blend_pixels, copy_pixels, number_pixels, seeded

Options = dict[str, Any]
LAYOUTS = ["contiguous", "channels_last", "strided"]


def draw_boxes(batch: int, size: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Two boxes of one size for each image; every third image has none."""
    random = torch.rand(4, batch, 2, generator=seeded(seed), dtype=torch.float64)
    limit = torch.tensor(size)
    extent = 1 + (random[0] * limit).long()
    extent[2::3] = 0
    corners = [(random[k] * (limit - extent + 1)).long() for k in (1, 2)]
    first, second = (torch.cat([corner, corner + extent], 1).int() for corner in corners)
    return first, second


def draw_plan(name: str, batch: int, size: tuple[int, int], seed: int) -> Plan:
    """Plans that only copy; "anything" holds what no augmentation draws: tiles and boxes from all over the batch."""
    shape, generator = (batch, 1, *size), seeded(seed)
    if name == "mosaic":
        return RecursiveMosaic(r=2).sample(shape, generator=generator)
    if name == "jigsaw":
        return Jigsaw(3).sample(shape, generator=generator)
    if name == "cutmix":
        return CutMix().sample(shape, generator=generator)
    tiles = torch.randint(0, max(batch * 16, 1), (batch, 16), generator=generator, dtype=torch.int32)
    overlay = torch.randint(0, max(batch, 1), (batch,), generator=generator, dtype=torch.int32)
    return Plan(size, tiles, overlay, *draw_boxes(batch, size, seed), torch.ones(batch))


COPIES = ["mosaic", "jigsaw", "cutmix", "anything"]


def expect_bits(got: Tensor, want: Tensor) -> None:
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    assert torch.equal(got.cpu(), want)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", COPIES)
def test_copies_carry_the_same_bits(name: str, layout: str, dtype: torch.dtype, device: torch.device) -> None:
    images, plan = number_pixels((4, 3, 13, 16), dtype, layout), draw_plan(name, 4, (13, 16), seed=1)
    want = copy_pixels(images, plan.to_dict())
    on_device = images.to(device)
    before, version = on_device.clone(), on_device._version
    expect_bits(apply(on_device, plan), want)
    assert torch.equal(on_device, before)
    assert on_device._version == version  # not even written and put back


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("size", [(4, 4), (5, 4), (16, 33), (33, 16), (19, 23)])
@pytest.mark.parametrize("batch", [0, 1, 2, 7])
@pytest.mark.parametrize("name", COPIES)
def test_copies_of_every_size_and_batch(name: str, batch: int, size: tuple[int, int], device: torch.device) -> None:
    images, plan = number_pixels((batch, 1, *size)), draw_plan(name, batch, size, seed=2)
    expect_bits(apply(images.to(device), plan), copy_pixels(images, plan.to_dict()))


@pytest.mark.parametrize("name", COPIES)
def test_video_moves_whole_clips(name: str, device: torch.device) -> None:
    images, plan = number_pixels((3, 4, 2, 9, 12)), draw_plan(name, 3, (9, 12), seed=3)
    expect_bits(apply(images.to(device), plan), copy_pixels(images, plan.to_dict()))


def test_the_margin_stays_where_it_is(device: torch.device) -> None:
    images = number_pixels((3, 2, 19, 21)).to(device)
    moved = apply(images, Jigsaw(4, permutation="cyclic").sample(images.shape))
    assert torch.equal(moved[:, :, 16:], images[:, :, 16:])
    assert torch.equal(moved[:, :, :, 20:], images[:, :, :, 20:])
    assert not (moved[:, :, :16, :20] == images[:, :, :16, :20]).any()  # no tile is at home, every pixel is unique


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("grid", [1, 4])
def test_identity_plan_gives_a_copy_of_the_images(
    grid: int, layout: str, dtype: torch.dtype, device: torch.device
) -> None:
    images = number_pixels((3, 2, 9, 8), dtype, layout).to(device)
    before = images.clone()
    got = apply(images, Plan.identity(3, (9, 8)).refine(grid))
    expect_bits(got, before.cpu())
    got.zero_()
    assert torch.equal(images, before), "the output shares memory with the input"


def test_invert_undoes(device: torch.device) -> None:
    images = number_pixels((5, 2, 17, 22)).to(device)
    for aug in (RecursiveMosaic(3), Jigsaw(5)):
        plan = aug.sample(images.shape)
        assert torch.equal(apply(apply(images, plan), plan.invert()), images)


def test_compose_is_one_pass_for_two(device: torch.device) -> None:
    images = number_pixels((4, 2, 17, 16)).to(device)
    first, second = (aug.sample(images.shape) for aug in (RecursiveMosaic(2), Jigsaw(2)))
    assert torch.equal(apply(images, first.compose(second)), apply(apply(images, first), second))


def round_error(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Half a step of ``dtype`` at ``value``."""
    return torch.finfo(dtype).eps / 2 * value.abs()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("aug", [MixUp(), SnapMix(1.0)], ids=["MixUp", "SnapMix"])
def test_arithmetic_is_done_once_in_float32(aug: MixUp | SnapMix, dtype: torch.dtype, device: torch.device) -> None:
    """One rounding to ``dtype`` on top of float32 work.

    Blending: 1 - w, two products and a sum, each off by at most u = 2**-24 of the pixels. Resampling: a position off
    by 2u * 17 px on each axis, which costs as much of a pixel's range, and two such blends. Together below 80u.
    float64 images are worked on in float64, u = 2**-53.
    """
    images = torch.rand(6, 3, 13, 17, generator=seeded(4)).to(dtype)
    plan = aug.sample(images.shape, generator=seeded(5))
    want = blend_pixels(images, plan.to_dict())
    unit = 2.0**-53 if dtype == torch.float64 else 2.0**-24
    got = apply(images.to(device), plan)
    assert got.dtype == dtype
    assert ((got.cpu().double() - want).abs() <= round_error(want, dtype) + 80 * unit).all()


@pytest.mark.parametrize("aug", [MixUp(), SnapMix(1.0)], ids=["MixUp", "SnapMix"])
def test_uint8_rounds_to_nearest(aug: MixUp | SnapMix, device: torch.device) -> None:
    """Equal to the oracle's rounding, but within 1e-3 of a tie, where float32 (off by 80 * 2**-24 * 255) may turn."""
    images = torch.randint(0, 256, (6, 3, 13, 17), generator=seeded(6), dtype=torch.uint8)
    plan = aug.sample(images.shape, generator=seeded(7))
    want = blend_pixels(images, plan.to_dict())
    got = apply(images.to(device), plan).cpu()
    near_tie = ((want - want.floor()) - 0.5).abs() < 1e-3
    assert near_tie.sum() < 0.1 * near_tie.numel()
    assert torch.equal(got[~near_tie].double(), want.round()[~near_tie])
    assert ((got.double() - want).abs() <= 0.5 + 1e-3).all()


def test_uint8_ties_go_to_even(device: torch.device) -> None:
    images = torch.tensor([0, 1, 2, 3, 254, 255], dtype=torch.uint8, device=device).view(6, 1, 1, 1)
    box = torch.tensor([[0, 0, 1, 1]] * 6, dtype=torch.int32)
    plan = dataclasses.replace(
        Plan.identity(6, (1, 1)),
        overlay=torch.tensor([1, 2, 3, 0, 5, 4], dtype=torch.int32),
        from_box=box,
        to_box=box,
        opacity=torch.full((6,), 0.5),
    )
    assert apply(images, plan).flatten().tolist() == [0, 2, 2, 2, 254, 254]  # 0.5, 1.5, 2.5, 1.5, 254.5, 254.5


def test_an_opaque_overlay_hides_infinities(device: torch.device) -> None:
    """Beside overlays that are blended in, one of opacity 1 is a copy: below it even infinity weighs nothing."""
    images = torch.ones(2, 1, 4, 4, device=device)
    images[0] = float("inf")
    box = torch.tensor([[0, 0, 4, 3]] * 2, dtype=torch.int32)
    plan = dataclasses.replace(
        Plan.identity(2, (4, 4)),
        overlay=torch.tensor([1, 1], dtype=torch.int32),
        from_box=box,
        to_box=box,
        opacity=torch.tensor([1.0, 0.5]),
    )
    assert apply(images, plan)[0, 0].tolist() == [[1, 1, 1, float("inf")]] * 4


def test_resampling_aligns_corners(device: torch.device) -> None:
    images = number_pixels((1, 1, 5, 5)).to(device)

    def stretch(from_box: list[int], to_box: list[int]) -> list[list[float]]:
        boxes = [torch.tensor([box], dtype=torch.int32) for box in (from_box, to_box)]
        got = apply(images, dataclasses.replace(Plan.identity(1, (5, 5)), from_box=boxes[0], to_box=boxes[1]))
        return [row[to_box[1] : to_box[3]] for row in got[0, 0].tolist()[to_box[0] : to_box[2]]]

    assert stretch([1, 1, 3, 3], [0, 0, 3, 5]) == [
        [6, 6.25, 6.5, 6.75, 7],
        [8.5, 8.75, 9, 9.25, 9.5],
        [11, 11.25, 11.5, 11.75, 12],
    ]
    assert stretch([0, 0, 5, 5], [1, 1, 4, 3]) == [[0, 4], [10, 14], [20, 24]]
    assert stretch([1, 2, 5, 5], [3, 0, 4, 1]) == [[7]]  # one target pixel shows the first source pixel
    assert stretch([2, 2, 3, 3], [0, 0, 2, 2]) == [[12, 12], [12, 12]]  # one source pixel fills the box


WINDOWS = [[0, 0, 0], [3, 2, 1], [1, 5, 1], [3, 5, 0], [2, 0, 0], [0, 3, 1]]
PICKED = [8, 0, 3, 3, 7, 1]


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("given", ["window", "index", "both"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_and_index_come_before_the_plan(name: str, given: str, layout: str, device: torch.device) -> None:
    size = (13, 12)
    stored = number_pixels(
        ((9 if given != "window" else 6), 2, *((16, 17) if given != "index" else size)), layout=layout
    )
    plan = draw_plan(name, 6, size, seed=8)
    windows = WINDOWS if given != "index" else None
    picked = PICKED if given != "window" else None
    want = copy_pixels(stored, plan.to_dict(), window=windows, index=picked)
    on_device, before = stored.to(device), stored.clone()
    for integers in (torch.int64, torch.int32):
        options: Options = {
            key: torch.tensor(value, dtype=integers, device=device)
            for key, value in (("window", windows), ("index", picked))
            if value is not None
        }
        expect_bits(apply(on_device, plan, **options), want)
    assert torch.equal(on_device.cpu(), before)


def test_everything_in_one_pass(device: torch.device) -> None:
    """uint8 in storage to a normalised batch: the 80u of blending at 255, then one step each for mean and std."""
    stored = torch.randint(0, 256, (9, 3, 16, 17), generator=seeded(9), dtype=torch.uint8)
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    exact_mean, exact_std = (torch.tensor(values).double().view(3, 1, 1) for values in (mean, std))
    for aug in (MixUp(), SnapMix(1.0), CutMix()):
        plan = aug.sample((6, 3, 13, 12), generator=seeded(10))
        plan = dataclasses.replace(plan, tiles=Jigsaw(4).sample((6, 3, 13, 12), generator=seeded(11)).tiles)
        want = (blend_pixels(stored, plan.to_dict(), window=WINDOWS, index=PICKED) - exact_mean) / exact_std
        options: Options = {"window": torch.tensor(WINDOWS), "index": torch.tensor(PICKED), "mean": mean, "std": std}
        got = apply(stored.to(device), plan, **options)
        assert got.dtype == torch.float32
        assert ((got.cpu().double() - want).abs() <= 85 * 2.0**-24 * 255 / 57 + 2 * round_error(want, got.dtype)).all()
        half = apply(stored.to(device), plan, dtype=torch.bfloat16, **options)
        assert torch.equal(half, got.bfloat16())  # rounded once, from the float32 result


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("target", [*DTYPES, None], ids=str)
def test_output_dtype(dtype: torch.dtype, target: torch.dtype | None, device: torch.device) -> None:
    images, plan = number_pixels((2, 3, 6, 6), dtype), draw_plan("anything", 2, (6, 6), seed=12)
    moved = copy_pixels(images, plan.to_dict())
    expect_bits(apply(images.to(device), plan, dtype=target), moved.to(target or dtype))
    normalised = apply(images.to(device), plan, mean=[1.0, 2.0, 3.0], std=[4.0, 2.0, 8.0], dtype=target)  # exact
    want = (moved.double() - torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)) / torch.tensor([4.0, 2.0, 8.0]).view(3, 1, 1)
    if target == torch.uint8:
        want = want.round().clamp(0, 255)
    expect_bits(normalised, want.to(target or (torch.float32 if dtype == torch.uint8 else dtype)))


def test_uint8_output_is_clamped(device: torch.device) -> None:
    images = torch.tensor([-7.0, -0.4, 0.5, 1.5, 2.6, 254.7, 300.0, 1e9], device=device).view(8, 1, 1, 1)
    plan = Plan.identity(8, (1, 1))
    got = apply(images, plan, dtype=torch.uint8)
    assert got.flatten().tolist() == [0, 0, 0, 2, 3, 255, 255, 255]
    assert torch.equal(apply(images.bfloat16(), plan, dtype=torch.uint8), got)


@pytest.mark.parametrize("mean", [[1.0, 2.0, 4.0], None])
@pytest.mark.parametrize("std", [[2.0, 4.0, 8.0], None])
def test_mean_and_std_come_as_lists_or_tensors(
    mean: list[float] | None, std: list[float] | None, device: torch.device
) -> None:
    images = number_pixels((2, 2, 3, 4, 5)).to(device)  # the channel of a video is its third axis
    want = images - torch.tensor(mean or [0.0] * 3, device=device).view(3, 1, 1)
    want = want / torch.tensor(std or [1.0] * 3, device=device).view(3, 1, 1)
    plan = Plan.identity(2, (4, 5))
    assert torch.equal(apply(images, plan, mean=mean, std=std), want)
    tensors = [None if values is None else torch.tensor(values, dtype=torch.float64) for values in (mean, std)]
    assert torch.equal(apply(images, plan, mean=tensors[0], std=tensors[1]), want)


@pytest.mark.parametrize("name", ["identity", *COPIES])
@pytest.mark.parametrize("wanted", [None, torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_memory_format(layout: str, wanted: torch.memory_format | None, name: str, device: torch.device) -> None:
    images = number_pixels((4, 3, 8, 9), layout=layout).to(device)
    plan = Plan.identity(4, (8, 9)) if name == "identity" else draw_plan(name, 4, (8, 9), seed=13)
    got = apply(images, plan, memory_format=wanted)
    kept = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert got.is_contiguous(memory_format=wanted or kept)
    assert torch.equal(got, apply(images.contiguous(), plan))


def test_one_image_keeps_its_layout() -> None:
    """Strides of a batch of one, or of one channel, say little."""
    for shape, pixels in (((1, 3, 8, 8), True), ((1, 1, 8, 8), False)):
        images = torch.rand(shape).contiguous(memory_format=torch.channels_last)
        got = apply(images, Plan.identity(1, (8, 8)))
        assert (got.stride(1) == 1) == pixels


def test_forward_mode_carries_tangents() -> None:
    images, tangents = torch.rand(2, 4, 3, 8, 8, generator=seeded(1))
    plan = draw_plan("mosaic", 4, (8, 8), seed=2)
    with forward_ad.dual_level():
        made = apply(forward_ad.make_dual(images, tangents), plan)  # type: ignore[no-untyped-call]
        assert torch.equal(forward_ad.unpack_dual(made).tangent, apply(tangents, plan))  # type: ignore[no-untyped-call]


def test_the_kernel_is_for_a_gpu() -> None:
    pytest.importorskip("triton")
    with pytest.raises(ValueError, match="backend='triton' needs CUDA images, got meta"):
        apply(torch.empty(2, 3, 8, 8, device="meta"), Plan.identity(2, (8, 8)), backend="triton")


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", ["identity", *COPIES])
def test_out_is_filled_and_returned(name: str, layout: str, device: torch.device) -> None:
    images = number_pixels((4, 3, 8, 9)).to(device)
    plan = Plan.identity(4, (8, 9)) if name == "identity" else draw_plan(name, 4, (8, 9), seed=14)
    before, want = images.clone(), apply(images, plan)
    out = number_pixels((4, 3, 8, 9), layout=layout).to(device).fill_(float("nan"))
    strides = out.stride()
    assert apply(images, plan, out=out) is out
    assert out.stride() == strides
    assert torch.equal(out, want)
    assert torch.equal(images, before)


def test_out_takes_the_last_of_the_pass(device: torch.device) -> None:
    stored = number_pixels((9, 3, 16, 17), torch.uint8).to(device)
    plan = draw_plan("cutmix", 6, (13, 12), seed=15)
    options: Options = {"window": torch.tensor(WINDOWS), "index": torch.tensor(PICKED), "mean": [127.5] * 3}
    out = torch.full((6, 3, 13, 12), float("nan"), dtype=torch.bfloat16, device=device)
    apply(stored, plan, dtype=torch.bfloat16, out=out, **options)
    assert torch.equal(out, apply(stored, plan, dtype=torch.bfloat16, **options))


# Refusals.


IMAGES, LABELS = torch.rand(4, 3, 16, 16), torch.arange(4)


def test_a_plan_for_another_batch_or_size() -> None:
    with pytest.raises(ValueError, match=r"apply.*5.*4"):
        apply(IMAGES, Plan.identity(5, (16, 16)))
    with pytest.raises(ValueError, match=r"apply.*16, 8.*16, 16"):
        apply(IMAGES, Plan.identity(4, (16, 8)))
    with pytest.raises(ValueError, match=r"mix_labels.*5.*4"):
        mix_labels(Plan.identity(5, (16, 16)), LABELS)


def test_out_that_overlaps_the_input() -> None:
    plan = Plan.identity(4, (16, 16))
    memory = torch.rand(6, 3, 16, 16)
    for images, out in [
        (memory[:4], memory[:4]),
        (memory[:4], memory[1:5]),
        (memory[1:5], memory[:4]),
        (memory[:4], memory.flatten()[384 : 384 + 4 * 768].view(4, 3, 16, 16)),
    ]:
        before = memory.clone()
        with pytest.raises(ValueError, match=r"apply.*out.*memory"):
            apply(images, plan, out=out)
        assert torch.equal(memory, before)
    memory = torch.rand(8, 3, 16, 16)  # neighbours in one storage do not overlap
    assert torch.equal(apply(memory[:4], plan, out=memory[4:]), memory[:4])


def test_out_that_would_lose_gradients() -> None:
    images, plan, out = IMAGES.clone().requires_grad_(), Plan.identity(4, (16, 16)), torch.zeros_like(IMAGES)
    with pytest.raises(ValueError, match=r"apply.*out.*gradients"):
        apply(images, plan, out=out)
    with pytest.raises(ValueError, match=r"apply.*out.*gradients"):
        apply(IMAGES, plan, out=torch.zeros_like(IMAGES, requires_grad=True))
    with torch.no_grad():
        assert torch.equal(apply(images, plan, out=out), IMAGES)


APPLY: dict[str, tuple[dict[str, Any], str]] = {
    "out of another shape": ({"out": torch.zeros(4, 3, 16, 15)}, r"out.*16, 15"),
    "out of another dtype": ({"out": torch.zeros(4, 3, 16, 16), "dtype": torch.float16}, r"out.*float16.*float32"),
    "out that is not contiguous": ({"out": torch.zeros(4, 3, 16, 32)[..., ::2]}, r"out must be contiguous.*1536.*2"),
    "out of another layout": (
        {"out": torch.zeros(4, 3, 16, 16), "memory_format": torch.channels_last},
        r"out.*channels_last",
    ),
    "dtype": ({"dtype": torch.int32}, r"dtype.*int32"),
    "memory format": ({"memory_format": torch.preserve_format}, r"memory_format.*preserve"),
    "backend": ({"backend": "cupy"}, r"backend.*cupy"),
    "mean of another length": ({"mean": [0.0, 1.0]}, r"mean.*3.*2"),
    "std of another length": ({"std": [1.0] * 4}, r"std.*3.*4"),
    "std of 0": ({"std": [1.0, 0.0, 1.0]}, r"std.*0"),
    "index of another length": ({"index": torch.arange(3)}, r"index.*4.*3"),
    "index past the images": ({"index": torch.tensor([0, 1, 2, 4])}, r"index.*4"),
    "index below 0": ({"index": torch.tensor([0, 1, 2, -1])}, r"index.*-1"),
    "index of floats": ({"index": torch.zeros(4)}, r"index.*float32"),
    "window of another shape": ({"window": torch.zeros(4, 2, dtype=torch.int64)}, r"window.*4, 2"),
    "window past the image": ({"window": torch.tensor([[0, 1, 0]] * 4)}, r"window.*1"),
    "window below 0": ({"window": torch.tensor([[-1, 0, 0]] * 4)}, r"window.*-1"),
    "window of floats": ({"window": torch.zeros(4, 3)}, r"window.*float32"),
}


@pytest.mark.parametrize(("options", "message"), APPLY.values(), ids=APPLY.keys())
def test_options_of_apply_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"apply.*{message}"):
        apply(IMAGES, Plan.identity(4, (16, 16)), **options)


def test_windows_larger_than_the_images() -> None:
    with pytest.raises(ValueError, match=r"apply.*17, 16.*16, 16"):
        apply(IMAGES, Plan.identity(4, (17, 16)), window=torch.zeros(4, 3, dtype=torch.int64))


def test_index_and_window_may_be_lists_and_arrays() -> None:
    images, plan = torch.rand(5, 3, 10, 12), Jigsaw(2).sample((2, 3, 8, 8))
    index, window = torch.tensor([4, 1]), torch.tensor([[0, 4, 1], [2, 0, 0]])
    want = apply(images, plan, index=index, window=window)
    assert torch.equal(apply(images, plan, index=index.tolist(), window=window.tolist()), want)
    wide: Any = index.numpy().astype("uint32")
    assert torch.equal(apply(images, plan, index=wide, window=window.numpy()), want)  # type: ignore[arg-type]
    assert torch.equal(apply_masks(images[:, 0], plan, index=index.tolist(), window=window.tolist()), want[:, 0])
    assert apply(images, Plan.identity(0, (10, 12)), index=[]).shape == (0, 3, 10, 12)


def test_masks_and_other_things_are_no_index() -> None:
    images, plan = torch.rand(2, 3, 8, 8), Plan.identity(2, (8, 8))
    for mask in (torch.tensor([True, True]), [True, True], np.array([True, True])):
        with pytest.raises(ValueError, match=r"^apply: index must be integer \[2\], .*; of a mask take index.nonzero"):
            apply(images, plan, index=mask)  # type: ignore[arg-type]
    for index in ("01", [[0], [0, 1]], {0: 1}, [None, 0]):
        with pytest.raises(TypeError, match=r"^apply: index must be a tensor, an array or a list of numbers, got "):
            apply(images, plan, index=index)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^apply: mean must be numbers, one per channel, got str$"):
        apply(images, plan, mean="abc")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^apply: plan must be a Plan, got dict; Plan.from_dict makes one$"):
        apply(images, plan.to_dict())  # type: ignore[arg-type]
