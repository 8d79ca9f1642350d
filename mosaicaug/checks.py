"""Checks of arguments that several public functions share; every message names its caller."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_images(caller: str, images: Tensor) -> None:
    """TypeError unless ``images`` is a tensor, ValueError unless its dtype is one of `DTYPES`."""
    if not isinstance(images, Tensor):
        raise TypeError(f"{caller}: images must be a tensor, got {type(images).__name__}")
    if images.dtype not in DTYPES:
        raise ValueError(f"{caller}: images must be one of {name_dtypes()}, got {images.dtype}")


def name_dtypes() -> str:
    """Names of `DTYPES`, for messages."""
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)


def check_integer(name: str, argument: str, value: object, low: int) -> None:
    """TypeError unless ``value`` is an integer, ValueError if it is below ``low``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: {argument} must be an integer, got {value!r}")
    if value < low:
        raise ValueError(f"{name}: {argument} must be at least {low}, got {value}")


def check_choice(name: str, argument: str, value: object, allowed: Any) -> None:
    """ValueError unless ``value`` is one of the choices of the Literal ``allowed``."""
    choices = get_args(allowed)
    if value not in choices:
        raise ValueError(f"{name}: {argument} must be one of {choices}, got {value!r}")


def check_labels(caller: str, labels: Tensor, batch: int, num_classes: int | None) -> None:
    """ValueError unless ``labels`` are integer ``[batch]`` or soft ``[batch, K]`` and fit ``num_classes``."""
    soft = labels.is_floating_point()
    if labels.is_complex() or labels.dtype == torch.bool or labels.ndim != (2 if soft else 1):
        raise ValueError(
            f"{caller}: labels must be integer [B] or float [B, K], got {labels.dtype} {list(labels.shape)}"
        )
    if len(labels) != batch:
        raise ValueError(f"{caller}: {batch} images need {batch} labels, got {len(labels)}")
    if soft and num_classes not in (None, labels.shape[1]):
        raise ValueError(f"{caller}: num_classes={num_classes}, but the soft labels have {labels.shape[1]} classes")
    if not soft and num_classes is not None:
        check_num_classes(caller, num_classes, labels)


def check_num_classes(caller: str, num_classes: int | None, labels: Tensor) -> None:
    """ValueError unless ``num_classes`` is above every label; labels on a GPU are not read back."""
    if num_classes is None:
        raise ValueError(f"{caller}: soft labels need num_classes, got None")
    if labels.device.type == "cpu" and labels.numel() and not torch.compiler.is_compiling():
        low, high = (int(value) for value in torch.aminmax(labels))
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"{caller}: num_classes={num_classes} needs labels in 0..{num_classes - 1}, got {low}..{high}"
            )
