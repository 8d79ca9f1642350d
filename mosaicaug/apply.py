"""`apply`: carry out a plan on images. Checks the arguments, chooses a backend and runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad

from mosaicaug.backends import cpu, reference
from mosaicaug.backends.request import Request
from mosaicaug.backends.resample import compute_dtype
from mosaicaug.backends.triton.table import PlanBuffer, Table, pack
from mosaicaug.checks import DTYPES, can_read, check_images, convert_tensor, is_transformed, name_dtypes
from mosaicaug.plan import Plan

Backend = Literal["auto", "torch", "triton"]
RunKernel = Callable[[Tensor, Table, Request, Tensor | None], Tensor]


def apply(
    images: Tensor,
    plan: Plan | PlanBuffer,
    *,
    window: Tensor | Sequence[Sequence[int]] | None = None,
    index: Tensor | Sequence[int] | None = None,
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
            ``window``, which may be lists, are not checked on a GPU, since that would wait for it.
        mean: one number per channel, in the units of the stored pixels (0 to 255 for uint8; nothing is scaled behind
            your back): ``(value - mean) * (1 / std)``.
        std: one number per channel, above 0.
        dtype: of the output; by default the images' own, or float32 where uint8 images are normalised.
        memory_format: ``torch.contiguous_format`` or ``torch.channels_last``; by default the images' own.
        out: written and returned; contiguous or channels_last, and may not share memory with ``images``.
        backend: "torch" runs everywhere and is differentiable; "triton" is one launch on a GPU; "auto" takes Triton for
            CUDA images that need no gradient, and torch otherwise.

    Returns:
        ``[B, C, H, W]`` or ``[B, T, C, H, W]``.

    Raises:
        ValueError: an argument does not fit the others; the message says which and what would.
        TypeError: ``images`` is not a tensor, ``plan`` is not a Plan, or another argument no numbers.
        ImportError: CUDA images, and the package triton is missing.

    Examples:
        >>> import torch
        >>> from mosaicaug import RecursiveMosaic, apply
        >>> stored = torch.randint(0, 256, (100, 3, 36, 36), dtype=torch.uint8)
        >>> plan = RecursiveMosaic(r=2).sample((8, 3, 32, 32))
        >>> window = torch.tensor([[2, 2, 1]] * 8)
        >>> batch = apply(stored, plan, index=torch.arange(8), window=window, mean=[127.5] * 3, std=[127.5] * 3)
        >>> batch.shape, batch.dtype
        (torch.Size([8, 3, 32, 32]), torch.float32)
    """
    # 1. Check that everything fits together, and fill in the defaults.
    check_images("apply", images)
    windows, indices = _check_geometry(images, plan, window, index)
    request = Request(
        dtype=_output_dtype(images, dtype, out, normalises=mean is not None or std is not None),
        channels_last=_output_is_channels_last(images, memory_format),
        window=windows,
        index=indices,
        mean=_per_channel("mean", mean, images),
        std=_per_channel("std", std, images),
    )
    if out is not None:
        _check_out(out, images, (len(plan), *images.shape[1:-2], *plan.size), request.dtype, memory_format)
    # 2. Choose a backend and run it.
    return _run(images, plan, request, out, backend)


def apply_nearest(
    images: Tensor,
    plan: Plan,
    *,
    window: Tensor | Sequence[Sequence[int]] | None,
    index: Tensor | Sequence[int] | None,
    backend: Backend = "auto",
) -> Tensor:
    """Move pixels as `apply` does, but take the nearest one where it would interpolate: bits are copied."""
    windows, indices = _check_geometry(images, plan, window, index)
    channels_last = _is_channels_last(images)
    request = Request(images.dtype, channels_last=channels_last, window=windows, index=indices, nearest=True)
    return _run(images, plan, request, None, backend)


def apply_each(images: Tensor, plans: Sequence[Plan], *, backend: Backend = "auto") -> list[Tensor]:
    """``[apply(images, plan) for plan in plans]``, for plans drawn for ``images``; Triton makes all in one launch."""
    check_images("apply", images)
    assert all((len(plan), plan.size) == (len(images), tuple(images.shape[-2:])) for plan in plans)
    request = Request(images.dtype, channels_last=_is_channels_last(images))
    run_kernel = None if torch.compiler.is_compiling() else _import_triton(images, backend)
    if run_kernel is None or len(plans) < 2:
        return [_run(images, plan, request, None, backend) for plan in plans]
    return list(torch.split(run_kernel(images, pack(plans), request, None), len(images)))


def _run(images: Tensor, plan: Plan | PlanBuffer, request: Request, out: Tensor | None, backend: Backend) -> Tensor:
    """Choose a backend for checked arguments, and run it."""
    if torch.compiler.is_compiling():
        fields = plan.plan if isinstance(plan, PlanBuffer) else plan
        made: Tensor = torch.ops.mosaicaug.apply(
            images,
            *(fields.tiles, fields.overlay, fields.from_box, fields.to_box, fields.opacity, *fields.size),
            *(request.window, request.index, request.mean, request.std, request.dtype, request.channels_last),
            *(backend, request.nearest),
        )
        return made if out is None else out.copy_(made)
    run_kernel = _import_triton(images, backend)
    if run_kernel is not None:
        table = plan.table if isinstance(plan, PlanBuffer) else pack([plan])
        return run_kernel(images, table, request, out)
    if isinstance(plan, PlanBuffer):
        raise ValueError(f"apply: a PlanBuffer needs the Triton backend, got backend={backend!r}; pass its .plan")
    if images.device.type == "cpu" and not _needs_grad(images) and not is_transformed(request.window, request.index):
        return cpu.run(images, plan, request, out)
    return reference.run(images, plan, request, out)


def _needs_grad(images: Tensor) -> bool:
    """True if the output has to record gradients, forward or backward, or is followed by a transform of torch.func."""
    if (images.requires_grad and torch.is_grad_enabled()) or is_transformed(images):
        return True
    in_forward_mode = forward_ad._current_level >= 0
    return in_forward_mode and forward_ad.unpack_dual(images).tangent is not None  # type: ignore[no-untyped-call]


def _import_triton(images: Tensor, backend: str) -> RunKernel | None:
    """The `run` of the Triton backend, imported only where it is to be used; None otherwise."""
    if backend not in get_args(Backend):
        raise ValueError(f"apply: backend must be one of {get_args(Backend)}, got {backend!r}")
    if backend == "torch" or (backend == "auto" and (images.device.type != "cuda" or _needs_grad(images))):
        return None
    if _needs_grad(images):
        raise ValueError(
            "apply: backend='triton' records no gradients and follows no torch.func; use backend='torch' or "
            "torch.no_grad()"
        )
    try:
        from mosaicaug.backends.triton import kernel
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise ImportError(
            "apply: images on a GPU need the package triton, which is missing; pip install triton, or use "
            "backend='torch', which is slower"
        ) from error
    kernel.check_device(images.device)
    return kernel.run


def _check_geometry(
    images: Tensor,
    plan: Plan | PlanBuffer,
    window: Tensor | Sequence[Sequence[int]] | None,
    index: Tensor | Sequence[int] | None,
) -> tuple[Tensor | None, Tensor | None]:
    """ValueError unless ``plan`` can be carried out on images, index and windows; returns windows and index."""
    if not isinstance(plan, (Plan, PlanBuffer)):
        way = "; Plan.from_dict makes one" if isinstance(plan, dict) else ""
        raise TypeError(f"apply: plan must be a Plan, got {type(plan).__name__}{way}")
    if images.ndim not in (4, 5):
        raise ValueError(f"apply: images must be [B, C, H, W] or [B, T, C, H, W], got {list(images.shape)}")
    windows = None if window is None else convert_tensor("apply", "window", window)
    indices = None if index is None else convert_tensor("apply", "index", index)
    batch, stored, size = len(plan), images.shape[0], tuple(images.shape[-2:])
    if indices is None and stored != batch:
        raise ValueError(f"apply: the plan is for {batch} images, got {stored}; draw it for this batch or pass index=")
    if indices is not None:
        _check_integers("index", indices, (batch,), (stored - 1,))
    if windows is None and size != plan.size:
        raise ValueError(f"apply: the plan is for {plan.size} px, got {size}; pass window= to crop")
    if windows is not None:
        room = [have - want for have, want in zip(size, plan.size, strict=True)]
        if min(room) < 0:
            raise ValueError(f"apply: windows of {plan.size} px do not fit images of {size} px")
        _check_integers("window", windows, (batch, 3), (*room, 1))
    return windows, indices


def _check_integers(name: str, value: Tensor, shape: tuple[int, ...], high: tuple[int, ...]) -> None:
    """ValueError unless ``value`` holds integers of ``shape``, each column within 0 and its limit in ``high``."""
    mask = value.dtype == torch.bool
    if mask or value.dtype.is_floating_point or value.dtype.is_complex or tuple(value.shape) != shape:
        way = f"; of a mask take {name}.nonzero()[:, 0]" if mask else ""
        raise ValueError(f"apply: {name} must be integer {list(shape)}, got {value.dtype} {list(value.shape)}{way}")
    # Values on a GPU are not read back: that would stop the host until the device is done.
    if not can_read(value):
        return
    least, most = value.view(-1, len(high)).aminmax(dim=0)
    if least.min() < 0 or any(got > limit for got, limit in zip(most.tolist(), high, strict=True)):
        limits = high[0] if len(high) == 1 else list(high)
        raise ValueError(f"apply: {name} must lie in 0..{limits}, got {value.min()}..{value.max()}")


def _output_dtype(images: Tensor, dtype: torch.dtype | None, out: Tensor | None, *, normalises: bool) -> torch.dtype:
    """Output dtype: the one asked for, else that of ``out``, else the images' own or float32 if uint8 is normalised."""
    if dtype is None and out is not None:
        dtype = out.dtype
    elif dtype is None:
        dtype = torch.float32 if images.dtype == torch.uint8 and normalises else images.dtype
    if dtype not in DTYPES:
        raise ValueError(f"apply: dtype must be one of {name_dtypes()}, got {dtype}")
    return dtype


def _output_is_channels_last(images: Tensor, memory_format: torch.memory_format | None) -> bool:
    """Output layout: the one asked for, or the images' own."""
    if memory_format not in (None, torch.contiguous_format, torch.channels_last):
        raise ValueError(f"apply: memory_format must be contiguous_format or channels_last, got {memory_format}")
    return _is_channels_last(images) if memory_format is None else memory_format == torch.channels_last


def _check_out(
    out: Tensor, images: Tensor, shape: tuple[int, ...], dtype: torch.dtype, memory_format: torch.memory_format | None
) -> None:
    """ValueError unless ``out`` can hold the result and shares no memory with ``images``."""
    if out.shape != shape or out.dtype != dtype or out.device != images.device:
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
    if tensor.is_contiguous():
        return tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    last = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _per_channel(name: str, values: Sequence[float] | Tensor | None, images: Tensor) -> Tensor | None:
    """Values per channel, ``[C]`` in the dtype of the arithmetic; ValueError for another number, or std of 0."""
    if values is None:
        return None
    channels = images.shape[-3]
    dtype = compute_dtype(images)
    try:
        tensor = values.to(dtype) if isinstance(values, Tensor) else torch.as_tensor(values, dtype=dtype, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"apply: {name} must be numbers, one per channel, got {type(values).__name__}") from error
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"apply: {name} gets no gradient; pass {name}.detach()")
    if tensor.numel() not in (1, channels) or tensor.ndim > 1:
        raise ValueError(f"apply: {name} needs one number per channel ({channels}), got {list(tensor.shape)}")
    if name == "std" and can_read(tensor) and not bool((tensor > 0).all()):
        raise ValueError(f"apply: std must be above 0, got {tensor.tolist()}")
    return tensor.expand(channels)


def _is_channels_last(images: Tensor) -> bool:
    """True if the channels of a pixel lie side by side in memory."""
    return images.shape[-3] > 1 and images.stride(-3) == 1 and not images.is_contiguous()


def _is_dense(out: Tensor, *, channels_last: bool) -> bool:
    """True if memory has no gaps and the order of the layout."""
    return (out.movedim(-3, -1) if channels_last else out).is_contiguous()
