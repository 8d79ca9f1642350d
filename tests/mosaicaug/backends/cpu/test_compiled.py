"""The compiled kernel: found or not, shared by threads, and never led outside the images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import hatch_build
from mosaicaug import CutMix, Jigsaw, MixUp, Plan, RecursiveMosaic, SnapMix, apply
from mosaicaug.backends.cpu import compiled, workers
from mosaicaug.backends.request import Request
from tests.helpers.oracle import copy_pixels, number_pixels, seeded

needs_kernel = pytest.mark.skipif(compiled.load() is None, reason=f"no compiled kernel: {compiled.describe()}")


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Three threads, small units; counts the helpers that are asked for."""
    monkeypatch.setattr(compiled, "UNIT_BYTES", 500)
    monkeypatch.setattr(compiled, "SHARED_BYTES", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    asked: list[int] = []
    start = workers.start

    def count(work: Callable[[], None], helpers: int) -> list[Future[None]]:
        asked.append(helpers)
        return start(work, helpers)

    monkeypatch.setattr(workers, "start", count)
    return asked


@needs_kernel
@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32])
def test_threads_make_every_unit_once(dtype: torch.dtype, threads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    images = number_pixels((9, 3, 24, 20), dtype)
    for aug in (RecursiveMosaic(2), Jigsaw(4), CutMix(), MixUp(), SnapMix()):
        plan = aug.sample(images.shape, generator=seeded(4))
        got = apply(images, plan)
        with monkeypatch.context() as context:
            context.setattr(compiled, "load", lambda: None)
            want = apply(images, plan)
        assert torch.equal(got, want)
    assert len([helpers for helpers in threads if helpers == 2]) >= 5


@needs_kernel
@pytest.mark.parametrize(
    ("field", "values", "named"),
    [
        ("tiles", [[4]], "tiles"),
        ("tiles", [[-1]], "tiles"),
        ("overlay", [2], "overlay"),
        ("from_box", [[0, 0, 9, 8]], "boxes"),
        ("to_box", [[0, 0, 8, 9]], "boxes"),
        ("to_box", [[-1, 0, 8, 8]], "boxes"),
    ],
)
def test_a_plan_changed_in_place_reads_no_foreign_memory(field: str, values: list[list[int]], named: str) -> None:
    images = torch.rand(2, 3, 8, 8)
    box = torch.tensor([[0, 0, 8, 8]] * 2, dtype=torch.int32)
    plan = dataclasses.replace(Plan.identity(2, (8, 8)), from_box=box, to_box=box.clone())
    getattr(plan, field)[:1] = torch.tensor(values, dtype=torch.int32)
    with pytest.raises(ValueError, match=f"{named} point outside"):
        apply(images, plan)


@needs_kernel
@pytest.mark.parametrize("named", ["index", "window"])
@pytest.mark.parametrize("first", [-1, 4])
def test_an_index_or_window_that_was_not_checked_reads_no_foreign_memory(named: str, first: int) -> None:
    images, values = torch.rand(4, 3, 8, 8), torch.tensor([first, 0]) if named == "index" else [[first * 2, 0, 0]] * 2
    given: dict[str, Any] = {named: torch.as_tensor(values)}
    request = Request(torch.float32, channels_last=False, **given)
    with pytest.raises(ValueError, match=f"{named} point outside"):
        compiled.run(images, Plan.identity(2, (8, 8)), request, torch.empty(2, 3, 8, 8), fresh=True)


@needs_kernel
@pytest.mark.parametrize("channels_last", [False, True])
def test_videos_are_moved_frame_by_frame(channels_last: bool) -> None:
    images = number_pixels((3, 2, 3, 8, 12))
    plan = Jigsaw(4).sample(images.shape, generator=seeded(6))
    request = Request(torch.float32, channels_last=channels_last)
    out = request.make_output(tuple(images.shape), images.device)
    assert compiled.run(images, plan, request, out, fresh=True)
    assert torch.equal(out, copy_pixels(images, plan.to_dict()))


@needs_kernel
def test_an_output_that_autograd_keeps_is_marked_as_changed() -> None:
    images, out = torch.rand(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    weight = torch.ones(2, 1, 4, 4, requires_grad=True)
    loss = (weight * out).sum()
    apply(images, Plan.identity(2, (4, 4)), out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]


def test_images_whose_sign_is_a_flag_are_read_with_their_sign() -> None:
    images = torch.complex(torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)).conj().imag
    assert images.is_neg()
    assert torch.equal(apply(images, Plan.identity(2, (4, 4))), images.clone())


def test_without_the_kernel_the_pixels_are_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    images = number_pixels((4, 3, 8, 8))
    plan = Jigsaw(4).sample(images.shape)
    monkeypatch.setattr(compiled, "load", lambda: compiled._load()[0])
    for name, content in (("missing.so", None), ("broken.so", b"no library")):
        library = tmp_path / name
        if content is not None:
            library.write_bytes(content)
        monkeypatch.setattr(compiled, "LIBRARY", library)
        found, reason = compiled._load()
        assert found is None
        assert ("not compiled" if content is None else "does not load") in reason
        assert torch.equal(apply(images, plan), copy_pixels(images, plan.to_dict()))


@needs_kernel
def test_a_kernel_of_another_source_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "kernel.c"
    source.write_bytes(compiled.SOURCE.read_bytes() + b"\n")
    monkeypatch.setattr(compiled, "SOURCE", source)
    found, reason = compiled._load()
    assert found is None
    assert "another version" in reason


def test_the_kernel_that_is_built_is_the_one_that_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert compiled.LIBRARY == hatch_build.LIBRARY
    library = tmp_path / "kernel.native"
    try:
        hatch_build.compile_kernel(library)
    except OSError as error:
        pytest.skip(hatch_build.describe_failure(error))
    monkeypatch.setattr(compiled, "LIBRARY", library)
    found, reason = compiled._load()
    assert found is not None
    assert reason == ""


def test_dtypes_that_the_kernel_only_copies_are_calculated_by_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    made: list[bool] = []
    run = compiled.run

    def note(images: Tensor, plan: Plan, request: Request, out: Tensor, *, fresh: bool) -> bool:
        made.append(run(images, plan, request, out, fresh=fresh))
        return made[-1]

    monkeypatch.setattr(compiled, "run", note)
    for aug in (Jigsaw(2), CutMix(), MixUp()):
        apply(images, aug.sample(images.shape))
    assert made == [compiled.load() is not None] * 2 + [False]


@needs_kernel
@pytest.mark.parametrize(
    ("given", "wanted", "normalised", "calculates"),
    [
        (torch.uint8, torch.float32, False, True),
        (torch.bfloat16, torch.bfloat16, True, True),
        (torch.float64, torch.float64, False, True),  # bytes are moved
        (torch.float64, torch.float32, False, False),
        (torch.float32, torch.float64, False, False),
        (torch.float16, torch.float16, True, False),
        (torch.complex128, torch.complex128, False, False),  # 16 bytes
    ],
    ids=str,
)
def test_the_kernel_says_what_it_can_calculate(
    given: torch.dtype, wanted: torch.dtype, normalised: bool, calculates: bool
) -> None:
    ones = torch.ones(3) if normalised else None
    for mean, std in ((ones, None), (None, ones)):
        request = Request(wanted, channels_last=False, mean=mean, std=std)
        images, out = torch.zeros(2, 3, 4, 4, dtype=given), torch.zeros(2, 3, 4, 4, dtype=wanted)
        assert compiled.run(images, Plan.identity(2, (4, 4)), request, out, fresh=True) is calculates


@needs_kernel
def test_an_empty_output_is_made_by_the_kernel() -> None:
    images = torch.zeros(0, 3, 4, 4)
    request = Request(torch.float32, channels_last=False)
    assert compiled.run(images, Plan.identity(0, (4, 4)), request, torch.empty(0, 3, 4, 4), fresh=True) is True


@pytest.mark.parametrize(
    ("shape", "channels_last", "planes"),
    [
        ((2, 1, 4, 6), False, [0]),
        ((2, 2, 4, 6), False, [0, 24]),
        ((2, 2, 4, 6), True, [0]),  # both channels of a pixel at once
        ((2, 5, 3, 4, 6), False, [24 * number for number in range(15)]),
        ((2, 5, 3, 4, 6), True, [72 * number for number in range(5)]),
        ((2, 3, 2, 3, 4, 6), True, [72 * number for number in range(6)]),
    ],
    ids=str,
)
def test_planes_are_moved_one_by_one_and_pixels_as_wholes(
    shape: tuple[int, ...], channels_last: bool, planes: list[int]
) -> None:
    request = Request(torch.float32, channels_last=channels_last)
    images, out = (request.make_output(shape, torch.device("cpu")) for _ in range(2))
    job, (_, _, offsets, *_) = compiled._make_job(images, Plan.identity(2, (4, 6)), request, out, fresh=True)
    assert [list(one) for one in offsets] == [planes, planes]
    assert (job.planes, job.pixel) == (len(planes), shape[-3] if channels_last else 1)


@pytest.mark.parametrize(
    ("shape", "images", "rows", "units"),
    [((10, 1, 16, 16), 4, 16, 3), ((3, 1, 32, 32), 1, 8, 12), ((2, 1, 64, 16), 1, 16, 8), ((2, 1, 3, 1024), 1, 1, 6)],
    ids=str,
)
def test_units_are_whole_images_or_bands_of_them(
    shape: tuple[int, ...], images: int, rows: int, units: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "UNIT_BYTES", 4 * 16 * 16)  # of one small image, or of four in bytes
    dtype = torch.uint8 if shape[-1] == 16 and shape[-2] == 16 else torch.float32
    batch = torch.zeros(shape, dtype=dtype)
    plan = Plan.identity(shape[0], (shape[-2], shape[-1]))
    job, _ = compiled._make_job(batch, plan, Request(dtype, channels_last=False), torch.empty_like(batch), fresh=True)
    assert (job.unit_images, job.unit_rows, job.units) == (images, rows, units)


@pytest.mark.parametrize("channels_last", [False, True])
def test_rows_of_a_large_output_that_lie_side_by_side_are_staged(channels_last: bool) -> None:
    images, plan = torch.zeros(1, 1, 1).expand(2, 3, 2048, 2048), Jigsaw(8).sample((2, 3, 2048, 2048))
    same = Request(torch.float32, channels_last=channels_last).make_output(tuple(images.shape), images.device)
    stored = torch.empty_like(same)  # 100 MB, of which nothing is touched

    def make_job(images: Tensor, plan: Plan, out: Tensor, *, fresh: bool = False) -> compiled.Job:
        return compiled._make_job(images, plan, Request(out.dtype, channels_last=channels_last), out, fresh=fresh)[0]

    job = make_job(stored, plan, same)
    assert (job.stage_rows, job.streams) == (1 if channels_last else 4, 1)
    job = make_job(stored, plan, same, fresh=True)
    assert (job.stage_rows, job.streams) == (1 if channels_last else 4, 0)  # its zeros are in the cache
    for height, staged, streams in ((128, True, False), (32, False, False)):  # 6 MB, 1.6 MB
        part = Jigsaw(8).sample((2, 3, height, 2048))
        job = make_job(stored[:, :, :height], part, torch.empty_like(same[:, :, :height]))
        assert (job.stage_rows > 0, bool(job.streams)) == (staged, streams)
    other = torch.empty(2, 3, 2048, 2048) if channels_last else torch.empty(2, 2048, 2048, 3).movedim(-1, 1)
    assert (
        make_job(stored, plan, other).stage_rows > 0
    ) == channels_last  # planes of three channels in a row otherwise
    # Rows that are copied whole are written as they are; those that are converted are not.
    whole = Plan.identity(2, (2048, 2048))
    assert not make_job(stored, whole, same).stage_rows
    assert make_job(stored.byte(), whole, same).stage_rows


def test_stages_hold_whole_tiles_where_they_can() -> None:
    shape = (32, 3, 448, 448)
    images, out = torch.empty(shape, dtype=torch.uint8), torch.empty(shape, dtype=torch.uint8)
    request = Request(torch.uint8, channels_last=False)
    jobs = [compiled._make_job(images, Jigsaw(n).sample(shape), request, out, fresh=False)[0] for n in (2, 8, 14)]
    assert [job.stage_rows for job in jobs] == [73, 56, 64]  # of 448 bytes in 32 KB; tiles are 224, 56 and 32 px high


@pytest.mark.parametrize(
    ("change", "read"),
    [
        (lambda images: images, True),
        (lambda images: images[..., ::2, :], True),
        (lambda images: images[..., ::4, :], False),  # most of what is read would be left out
        (lambda images: images.transpose(-1, -2), False),
        (lambda images: images[:3], False),  # fewer images than threads have a use for
    ],
)
def test_images_are_read_in_order_where_it_pays(
    change: Callable[[Tensor], Tensor], read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "STAGED_BYTES", 0)
    monkeypatch.setattr(compiled, "UNIT_BYTES", 500)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    images = change(torch.zeros(4, 3, 64, 64))
    request, out = Request(torch.float32, channels_last=False), torch.empty(images.shape)
    job, _ = compiled._make_job(images, Jigsaw(4).sample(images.shape), request, out, fresh=False)
    assert (job.touches, job.unit_rows == images.shape[-2]) == (read, read)
    monkeypatch.setattr(compiled, "TOUCH_BYTES", 64 * 32)
    assert not compiled._make_job(images, Jigsaw(4).sample(images.shape), request, out, fresh=False)[0].touches
