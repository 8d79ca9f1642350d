"""The one door to pixels: checks what the user passed, picks the backend, hands over."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mosaicaug.backends import cpu as cpu_backend
from mosaicaug.backends import reference, resample
from mosaicaug.backends.triton.table import PlanBuffer, pack
from mosaicaug.checks import DTYPES, check_images, name_shape
from mosaicaug.plan import Plan

Backend = Literal["auto", "torch", "triton"]


def apply(
    images: Tensor,
    plan: Plan | PlanBuffer,
    *,
    window: Tensor | None = None,
    index: Tensor | None = None,
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    out: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Make the images that ``plan`` describes, in one pass: pick, crop, flip, rearrange or mix, normalise, cast.

    Copies are exact. Blending, resampling and normalising are done in float32 (float64 for float64 images) and
    rounded to the output's dtype once; uint8 rounds to nearest. Normalising multiplies by 1 / std. Every backend does
    the same steps, so all give the same bits. The input is never changed.

    Args:
        images: ``[N, C, H, W]``, or video ``[N, T, C, H, W]`` (one plan per clip); uint8 or floating, any strides.
        plan: for B images of ``plan.size``; a `PlanBuffer` for CUDA graphs.
        window: integer ``[B, 3]``, y0, x0 and flip of each batch entry: the crop of ``plan.size`` that the plan works
            on, mirrored left to right where flip is not 0. Without it the images have ``plan.size``.
        index: integer ``[B]``, which stored image each batch entry is. Without it N = B. Values of ``index`` and
            ``window`` that are on a GPU are not checked, since that would wait for it.
        mean, std: one number per channel, in the units of the stored pixels (0 to 255 for uint8; nothing is scaled
            behind your back): ``(value - mean) * (1 / std)``.
        dtype: of the output; by default the images' own, or float32 where uint8 images are normalised.
        memory_format: ``torch.contiguous_format`` or ``torch.channels_last``; by default the images' own.
        out: written and returned; contiguous or channels_last, and may not share memory with ``images``.
        backend: "torch" runs everywhere and is differentiable; "triton" is one launch on a GPU; "auto" takes Triton for
            CUDA images that need no gradient, and torch otherwise.

    Returns:
        ``[B, C, H, W]`` or ``[B, T, C, H, W]``.

    Raises:
        ValueError: an argument does not fit the others; the message says which and what would.
        TypeError: ``images`` is not a tensor, or ``plan`` is not a Plan.
        ImportError: CUDA images, and the package triton is missing.

    >>> from mosaicaug import RecursiveMosaic
    >>> stored = torch.randint(0, 256, (100, 3, 36, 36), dtype=torch.uint8)
    >>> plan = RecursiveMosaic(r=2).sample((8, 3, 32, 32))
    >>> window = torch.tensor([[2, 2, 1]] * 8)
    >>> batch = apply(stored, plan, index=torch.arange(8), window=window, mean=[127.5] * 3, std=[127.5] * 3)
    >>> batch.shape, batch.dtype
    (torch.Size([8, 3, 32, 32]), torch.float32)
    """
    check_images("apply", images)
    options: dict[str, Any] = {"mean": mean, "std": std, "dtype": dtype, "memory_format": memory_format, "out": out}
    return _carry_out(images, plan, window=window, index=index, **options, backend=backend, nearest=False)


def apply_nearest(
    images: Tensor, plan: Plan, *, window: Tensor | None, index: Tensor | None, backend: Backend = "auto"
) -> Tensor:
    """`apply` that takes the nearest pixel where it would interpolate: bits are copied, whatever they mean."""
    options = dict.fromkeys(("mean", "std", "dtype", "memory_format", "out"))
    return _carry_out(images, plan, window=window, index=index, **options, backend=backend, nearest=True)


def _carry_out(
    images: Tensor,
    plan: Plan | PlanBuffer,
    *,
    window: Tensor | None,
    index: Tensor | None,
    mean: Sequence[float] | Tensor | None,
    std: Sequence[float] | Tensor | None,
    dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
    out: Tensor | None,
    backend: Backend,
    nearest: bool,
) -> Tensor:
    if not isinstance(plan, (Plan, PlanBuffer)):
        raise TypeError(f"apply: plan must be a Plan, got {type(plan).__name__}")
    if images.ndim not in (4, 5):
        raise ValueError(f"apply: images must be [B, C, H, W] or [B, T, C, H, W], got {list(images.shape)}")
    batch, stored = len(plan), images.shape[0]
    if index is None and stored != batch:
        raise ValueError(f"apply: the plan is for {batch} images, got {stored}; draw it for this batch or pass index=")
    if index is not None:
        _check_integers("index", index, (batch,), (stored - 1,))
    if window is None and tuple(images.shape[-2:]) != plan.size:
        raise ValueError(f"apply: the plan is for {plan.size} px, got {tuple(images.shape[-2:])}; pass window= to crop")
    if window is not None:
        room = [have - want for have, want in zip(images.shape[-2:], plan.size, strict=True)]
        if min(room) < 0:
            raise ValueError(f"apply: windows of {plan.size} px do not fit images of {tuple(images.shape[-2:])} px")
        _check_integers("window", window, (batch, 3), (*room, 1))
    if dtype is None:
        normalises = mean is not None or std is not None
        default = torch.float32 if images.dtype == torch.uint8 and normalises else images.dtype
        dtype = default if out is None else out.dtype
    if dtype not in DTYPES:
        raise ValueError(f"apply: dtype must be one of {name_shape()}, got {dtype}")
    if memory_format not in (None, torch.contiguous_format, torch.channels_last):
        raise ValueError(f"apply: memory_format must be contiguous_format or channels_last, got {memory_format}")
    shape = (batch, *images.shape[1:-2], *plan.size)
    if out is not None:
        _check_out(out, images, shape, dtype, memory_format)
    channels_last = _is_channels_last(images) if memory_format is None else memory_format == torch.channels_last
    centre, spread = _per_channel("mean", mean, images), _per_channel("std", std, images)
    if torch.compiler.is_compiling():
        fields = plan.plan if isinstance(plan, PlanBuffer) else plan
        made: Tensor = torch.ops.mosaicaug.apply(
            images,
            *(fields.tiles, fields.overlay, fields.from_box, fields.to_box, fields.opacity, *fields.size),
            *(window, index, centre, spread, dtype, channels_last, backend, nearest),
        )
        return made if out is None else out.copy_(made)
    scale = None if spread is None else 1 / spread
    options: dict[str, Any] = {"window": window, "index": index, "mean": centre, "scale": scale, "nearest": nearest}
    triton_backend, needs_grad = _find_triton(images, backend), _needs_grad(images)
    if triton_backend is not None:
        table = plan.table if isinstance(plan, PlanBuffer) else pack([plan])
        made = make_empty(shape, dtype, images.device, channels_last=channels_last) if out is None else out
        triton_backend.run(images, table, **options, out=made)
        return made
    if isinstance(plan, PlanBuffer):
        raise ValueError(f"apply: a PlanBuffer needs the Triton backend, got backend={backend!r}; pass its .plan")
    for name in ("mean", "scale"):
        value = options[name]
        if value is not None:
            options[name] = value.to(images.device, non_blocking=True).view(-1, 1, 1)
    if needs_grad or images.device.type != "cpu":
        made = reference.run(images, plan, **options, dtype=dtype, channels_last=channels_last)
        return made if out is None else out.copy_(made)
    made = make_empty(shape, dtype, images.device, channels_last=channels_last) if out is None else out
    return cpu_backend.run(images, plan, **options, out=made)


def apply_each(images: Tensor, plans: Sequence[Plan], *, backend: Backend = "auto") -> list[Tensor]:
    """``[apply(images, plan) for plan in plans]``; Triton makes all of them in one launch."""
    check_images("apply", images)
    triton_backend = None if torch.compiler.is_compiling() else _find_triton(images, backend)
    if triton_backend is None or len(plans) < 2:
        return [apply(images, plan, backend=backend) for plan in plans]
    assert all((len(plan), plan.size) == (len(images), tuple(images.shape[-2:])) for plan in plans)
    shape, channels_last = (len(plans) * len(images), *images.shape[1:]), _is_channels_last(images)
    out = make_empty(shape, images.dtype, images.device, channels_last=channels_last)
    options: dict[str, Any] = dict.fromkeys(("window", "index", "mean", "scale"))
    triton_backend.run(images, pack(plans), **options, nearest=False, out=out)
    return list(torch.split(out, len(images)))


def _needs_grad(images: Tensor) -> bool:
    return images.requires_grad and torch.is_grad_enabled()


def _find_triton(images: Tensor, backend: str) -> ModuleType | None:
    """The Triton backend if it is to be used."""
    if backend not in get_args(Backend):
        raise ValueError(f"apply: backend must be one of {get_args(Backend)}, got {backend!r}")
    if backend == "torch" or (backend == "auto" and (images.device.type != "cuda" or _needs_grad(images))):
        return None
    if _needs_grad(images):
        raise ValueError("apply: backend='triton' records no gradients; use backend='torch', or torch.no_grad()")
    try:
        from mosaicaug.backends.triton import kernel as triton_backend
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise ImportError(
            "apply: images on a GPU need the package triton, which is missing; pip install triton, or use "
            "backend='torch', which is slower"
        ) from error
    triton_backend.check_device(images.device)
    return triton_backend


def make_empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, *, channels_last: bool) -> Tensor:
    """Fresh memory in one of the two layouts; channels_last for videos too."""
    if not channels_last:
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.empty((*shape[:-3], *shape[-2:], shape[-3]), dtype=dtype, device=device).movedim(-1, -3)


def _check_integers(name: str, value: Tensor, shape: tuple[int, ...], high: tuple[int, ...]) -> None:
    if value.dtype.is_floating_point or value.dtype.is_complex or tuple(value.shape) != shape:
        raise ValueError(f"apply: {name} must be integer {list(shape)}, got {value.dtype} {list(value.shape)}")
    # Values on a GPU are not read back: that would stop the host until the device is done.
    if torch.compiler.is_compiling() or value.device.type != "cpu" or value.numel() == 0:
        return
    least, most = value.view(-1, len(high)).aminmax(dim=0)
    if least.min() < 0 or any(got > limit for got, limit in zip(most.tolist(), high, strict=True)):
        limits = high[0] if len(high) == 1 else list(high)
        raise ValueError(f"apply: {name} must lie in 0..{limits}, got {value.min()}..{value.max()}")


def _check_out(
    out: Tensor, images: Tensor, shape: tuple[int, ...], dtype: torch.dtype, memory_format: torch.memory_format | None
) -> None:
    if (tuple(out.shape), out.dtype, out.device) != (shape, dtype, images.device):
        raise ValueError(
            f"apply: out must be {dtype} {list(shape)} on {images.device}, "
            f"got {out.dtype} {list(out.shape)} on {out.device}"
        )
    if memory_format is not None and not _is_dense(out, channels_last=memory_format == torch.channels_last):
        raise ValueError(f"apply: out is not laid out as {memory_format}; leave memory_format out to keep out's own")
    if not (_is_dense(out, channels_last=False) or _is_dense(out, channels_last=True)):
        raise ValueError(
            f"apply: out must be contiguous or channels_last, got strides {out.stride()} for {list(out.shape)}; "
            "pass a tensor from torch.empty"
        )
    if out.requires_grad or _needs_grad(images):
        raise ValueError("apply: out= does not record gradients; leave it out, or use torch.no_grad()")
    (start, end), (out_start, out_end) = _extent(images), _extent(out)
    if start < out_end and out_start < end:
        raise ValueError("apply: out shares memory with images, which would be read after being written; pass another")


def _extent(tensor: Tensor) -> tuple[int, int]:
    """First byte and the byte after the last that the tensor touches."""
    if tensor.numel() == 0:
        return 0, 0
    last = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _per_channel(name: str, values: Sequence[float] | Tensor | None, images: Tensor) -> Tensor | None:
    """``[C]`` in the dtype that the arithmetic is done in."""
    if values is None:
        return None
    channels = images.shape[-3]
    tensor = torch.as_tensor(values, dtype=resample.compute_dtype(images))
    if tensor.numel() not in (1, channels) or tensor.ndim > 1:
        raise ValueError(f"apply: {name} needs one number per channel ({channels}), got {list(tensor.shape)}")
    if (
        name == "std"
        and not torch.compiler.is_compiling()
        and tensor.device.type == "cpu"
        and bool((tensor <= 0).any())
    ):
        raise ValueError(f"apply: std must be above 0, got {tensor.tolist()}")
    return tensor.expand(channels)


def _is_channels_last(images: Tensor) -> bool:
    return images.shape[-3] > 1 and images.stride(-3) == 1 and not images.is_contiguous()


def _is_dense(out: Tensor, *, channels_last: bool) -> bool:
    return (out.movedim(-3, -1) if channels_last else out).is_contiguous()
