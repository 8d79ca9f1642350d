"""Properties of pixels: every backend, with every argument of `apply`, against the oracle."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from mosaicaug import Plan, apply, apply_masks
from mosaicaug.apply import Backend, apply_each
from mosaicaug.backends import cpu, reference
from mosaicaug.backends.cpu import compiled, tiles
from mosaicaug.backends.triton import launch
from tests.helpers.dense_oracle import Sources, trace_sources
from tests.helpers.interpreter import leave_out_waste, round_to_bfloat16
from tests.properties.cases import Case

tried: Counter[str] = Counter()  # plans carried out and compared, by backend: one for each output image
calls: Counter[str] = Counter()  # of `apply`, by backend
largest: Counter[str] = Counter()  # elements of the images, and batch, of the largest case
MASK_DTYPES = (torch.uint8, torch.bool, torch.int16, torch.int32, torch.int64, torch.float16, torch.float64)
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def list_backends() -> list[str]:
    """Backends that this machine can run; "operations" is the CPU backend without its compiled kernel."""
    if torch.cuda.is_available():
        return ["cpu", "operations", "reference", "cuda"]
    interprets = os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None
    return ["cpu", "operations", "reference", *(["interpreter"] if interprets else [])]


def check_kernel(case: Case) -> None:
    """AssertionError unless Triton's kernel makes the oracle's pixels, on a GPU or in its interpreter."""
    check_pixels(case, [name for name in list_backends() if name != "reference"])


def check_launch(case: Case) -> None:
    """AssertionError unless several plans in one call make what each of them makes alone; in one launch on Triton."""
    images = case.make_images()
    grids = [min(1 + (case.grid * step) % 5, *case.size) for step in range(1 + case.seed % 4)]
    plans = [replace(case, seed=case.seed + step, grid=grid).make_plan() for step, grid in enumerate(grids)]
    kinds: list[Backend] = ["torch", *(["triton"] if list_backends()[-1] != "reference" else [])]  # type: ignore[list-item]
    for kind in kinds:
        with interpret(small=case.small_blocks):
            here = move_strided(images) if kind == "triton" and torch.cuda.is_available() else images
            made = apply_each(here, plans, backend=kind)
        for plan, one in zip(plans, made, strict=True):
            tried["one launch"] += case.batch
            expect_bits(one.cpu(), apply(images, plan))
        calls["one launch"] += 1


def check_pixels(case: Case, backends: Sequence[str] = ("cpu", "operations", "reference")) -> None:
    """AssertionError unless every backend makes the oracle's pixels, and all of them the same bits."""
    fields, images = case.make_fields(), case.make_images()
    plan, options, before = Plan.from_dict(fields), case.make_options(images), images.clone()
    made = [run_backend(name, case, images, plan, options) for name in backends]
    sources = trace_sources(fields).look_through(*read_geometry(options), case.width)
    expect_oracle(made[0], images, sources, case, options)
    for other in made[1:]:
        expect_bits(other, made[0])
        assert read_layout(other) == read_layout(made[0])
    expect_bits(images, before)


def run_backend(name: str, case: Case, images: Tensor, plan: Plan, options: dict[str, Any]) -> Tensor:
    """Images made by one backend through `mosaicaug.apply`, on the CPU."""
    tried[name] += case.batch
    calls[name] += 1
    largest["elements"], largest["batch"] = (
        max(largest[key], value) for key, value in (("elements", images.numel()), ("batch", case.batch))
    )
    if case.into:
        options = {**options, "out": make_out(case, images, options)}
    kind: Backend = "triton" if name in ("cuda", "interpreter") else "torch"
    with contextlib.ExitStack() as stack:
        if name == "reference":
            stack.enter_context(mock.patch.object(cpu, "run", reference.run))
        if name == "operations":
            stack.enter_context(mock.patch.object(compiled, "load", return_value=None))
        if case.small_blocks:
            stack.enter_context(mock.patch.multiple(tiles, SCRATCH_BYTES=600, STAGE_BYTES=600))
            stack.enter_context(
                mock.patch.multiple(compiled, UNIT_BYTES=600, STAGED_BYTES=0, STREAM_BYTES=0, STAGE_BYTES=200)
            )
        if name == "interpreter":
            stack.enter_context(interpret(small=case.small_blocks))
        if name.startswith("cuda"):
            images = move_strided(images)
            options = {key: value.cuda() if key == "out" else value for key, value in options.items()}
        made = apply(images, plan, backend=kind, **options)
    out = options.get("out")
    assert out is None or out is made
    return made.cpu()


@contextlib.contextmanager
def interpret(*, small: bool) -> Iterator[None]:
    """Triton's interpreter with a GPU's rounding, and large programs: it takes as long for these as for small ones."""
    if torch.cuda.is_available() or find_spec("triton") is None:
        yield
        return
    from triton.runtime import interpreter

    convert = round_to_bfloat16(interpreter._convert_float)
    chunks = launch.CHUNKS * (1 if small else 8)
    with (
        mock.patch.object(interpreter, "_convert_float", convert),
        mock.patch.object(launch, "CHUNKS", chunks),
        leave_out_waste(),
    ):
        yield


def read_layout(made: Tensor) -> list[int]:
    """Strides of the axes along which there is more than one element."""
    return [step for step, length in zip(made.stride(), made.shape, strict=True) if length > 1 and made.numel()]


def move_strided(images: Tensor) -> Tensor:
    """The images on the GPU, with their strides."""
    memory = images.as_strided((images.untyped_storage().nbytes() // images.element_size(),), (1,), 0)
    return memory.cuda().as_strided(images.shape, images.stride(), images.storage_offset())


def make_out(case: Case, images: Tensor, options: dict[str, Any]) -> Tensor:
    """Memory for the output, full of 77."""
    plain = torch.float32 if case.dtype == "uint8" and (case.mean or case.std) else images.dtype
    shape = (case.batch, *images.shape[1:-2], *case.size)
    out = torch.full(shape, 77, dtype=options.get("dtype", plain))
    last = case.out_layout == "channels_last" or (not case.out_layout and case.seed % 2)
    return out.movedim(-3, -1).contiguous().movedim(-1, -3) if last else out


def read_geometry(options: dict[str, Any]) -> tuple[Tensor | None, Tensor | None]:
    """Windows and indices as tensors."""
    window, index = (options.get(name) for name in ("window", "index"))
    return tuple(None if value is None else torch.as_tensor(value) for value in (window, index))  # type: ignore[return-value]


def expect_oracle(got: Tensor, images: Tensor, sources: Sources, case: Case, options: dict[str, Any]) -> None:
    """AssertionError unless copies are exact, and what is computed lies within the roundings of the arithmetic.

    A blend takes about ten roundings; the positions of a resampled box are rounded too, in proportion to its sides.
    """
    normalises = case.mean or case.std
    plain = torch.float32 if images.dtype == torch.uint8 and normalises else images.dtype
    assert got.dtype == options.get("dtype", plain)
    if not normalises and got.dtype == images.dtype and bool(sources.exact.all()):
        expect_bits(got, sources.copy(images))
        return
    # 1. The value of every pixel in float64, and a bound of its error before the output's own rounding.
    compute = torch.float64 if images.dtype == torch.float64 else torch.float32
    unit, largest = torch.finfo(compute).eps / 2, float(images.double().abs().amax()) if images.numel() else 0.0
    want = sources.blend(images)
    exact = sources.exact.view(len(want), *(1,) * (want.ndim - 3), *case.size)
    error = torch.where(exact, 0.0, (16 + 8 * max(case.size)) * unit * largest)
    if normalises:
        mean, std = (
            torch.tensor(options.get(name, [default] * case.channels), dtype=compute)[:, None, None]
            for name, default in (("mean", 0.0), ("std", 1.0))
        )
        scale, reach = (1 / std).double(), largest + mean.double().abs()
        want, error = (want - mean.double()) * scale, (error + 4 * unit * reach) * scale
    # 2. Rounding keeps the order: the output lies between the rounded ends of what the arithmetic may give.
    low, high = (cast(value, got.dtype) for value in (want - error, want + error))
    wrong = ~((got.double() >= low.double()) & (got.double() <= high.double()))
    assert not wrong.any(), f"{int(wrong.sum())} pixels, first at {wrong.nonzero()[0].tolist()}"


def cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Round float64 values to the dtype of an output."""
    return values.round().clamp(0, 255).to(dtype) if dtype == torch.uint8 else values.to(dtype)


def expect_bits(got: Tensor, want: Tensor) -> None:
    """AssertionError unless shape, dtype and every bit are equal."""
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    bits = _BITS[got.element_size()]
    wrong = got.contiguous().view(bits) != want.contiguous().view(bits)
    assert not wrong.any(), f"{int(wrong.sum())} pixels, first at {wrong.nonzero()[0].tolist()}"


def check_gradients(case: Case) -> None:
    """AssertionError unless the gradient of `apply` is the oracle's, transposed."""
    fields, images = case.make_fields(), case.make_images().detach().clone().requires_grad_()
    options = case.make_options(images)
    tried["gradient"] += case.batch
    calls["gradient"] += 1
    made = apply(images, Plan.from_dict(fields), **options)
    sources = trace_sources(fields).look_through(*read_geometry(options), case.width)
    expect_oracle(made.detach(), images.detach(), sources, case, options)
    upstream = torch.rand(made.shape, generator=torch.Generator().manual_seed(case.seed), dtype=torch.float64)
    if not made.numel():
        return
    (got,) = torch.autograd.grad(made, images, upstream.to(made.dtype))
    twin = torch.zeros(images.shape, dtype=torch.float64, requires_grad=True)
    scale = 1 / torch.tensor(options.get("std", [1.0] * case.channels), dtype=torch.float64)[:, None, None]
    (want,) = torch.autograd.grad(sources.blend(twin) * scale, twin, upstream)
    unit = torch.finfo(images.dtype).eps
    bound = (16 + 8 * max(case.size)) * case.batch * unit * float(want.abs().amax() + scale.amax())
    assert (got - want).abs().max() <= bound


def check_masks(case: Case) -> None:
    """AssertionError unless masks of any dtype follow the heaviest pixel, whole."""
    dtype = MASK_DTYPES[case.seed % len(MASK_DTYPES)]
    fields, images = case.make_fields(), case.make_images()
    masks = (images.double() * 7).round().long().remainder(251).to(dtype)
    options = case.make_options(images)
    geometry = {name: options[name] for name in ("window", "index") if name in options}
    flat = masks[..., 0, :, :] if case.channels == 1 else masks
    there = flat.cuda() if torch.cuda.is_available() and case.seed % 2 else flat
    made = apply_masks(there, Plan.from_dict(fields), **geometry).cpu()
    tried["masks"] += case.batch
    calls["masks"] += 1
    assert (made.dtype, made.shape) == (dtype, (case.batch, *flat.shape[1:-2], *case.size))
    # The heavier of two images stands, at equal weights the own; of it the nearest pixel, or any of several as near.
    sources = trace_sources(fields).look_through(*read_geometry(options), case.width)
    stands = (torch.tensor(fields["opacity"]) > 0.5).view(-1, 1, 1)
    weight = sources.weight.clone()
    weight[0] = torch.where(stands & (weight[1:].sum(0) > 0), 0, weight[0])
    weight[1:] *= stands
    place = torch.stack([sources.image, sources.y, sources.x], -1)
    same = (place[:, None] == place[None]).all(-1)  # [5, 5, B, H, W]: neighbours of a border may be one pixel
    total = (same * weight).sum(1)
    heaviest = total > total.amax(0) - 1e-5
    seen = sources.read(flat)
    lead = (1,) * (flat.ndim - 3)
    fits = (seen == made) & heaviest.view(5, case.batch, *lead, *case.size)
    assert fits.any(0).all()
