"""Checks of arguments that several public functions share; every message names its caller."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor

DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WIDE = (torch.uint16, torch.uint32, torch.uint64)  # integers that torch stores and hardly computes with


def check_images(caller: str, images: Tensor) -> None:
    """TypeError unless ``images`` is a tensor, ValueError unless its dtype is one of `DTYPES`."""
    if not isinstance(images, Tensor):
        raise TypeError(
            f"{caller}: images must be a tensor [B, C, H, W], got {type(images).__name__}; make one with torch.stack, "
            "torch.from_numpy or torchvision's pil_to_tensor, channels before height and width"
        )
    if images.dtype not in DTYPES:
        raise ValueError(f"{caller}: images must be one of {name_dtypes()}, got {images.dtype}")


def name_dtypes() -> str:
    """Names of `DTYPES`, for messages."""
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)


def check_tensor(caller: str, argument: str, value: object) -> None:
    """TypeError unless ``value`` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{caller}: {argument} must be a tensor, got {type(value).__name__}; use torch.as_tensor")


def check_integer(name: str, argument: str, value: Any, low: int) -> int:
    """TypeError unless ``value`` is an integer (numpy's too), ValueError if it is below ``low``; returns it."""
    if isinstance(value, (bool, Tensor)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: {argument} must be an integer, got {value!r}")
    number: int = operator.index(value)
    if number < low:
        raise ValueError(f"{name}: {argument} must be at least {low}, got {number}")
    return number


def check_number(name: str, argument: str, value: Any) -> float:
    """TypeError unless ``value`` is one real number; returns it as a float."""
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name}: {argument} must be a number, got {value!r}")
    return float(value)


def check_chance(name: str, argument: str, value: Any) -> float:
    """ValueError unless ``value`` is a number in 0..1; returns it as a float."""
    number = check_number(name, argument, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name}: {argument} must lie in 0..1, got {value}")
    return number


def check_choice(name: str, argument: str, value: object, allowed: Any) -> None:
    """ValueError unless ``value`` is one of the choices of the Literal ``allowed``."""
    choices = get_args(allowed)
    if value not in choices:
        raise ValueError(f"{name}: {argument} must be one of {choices}, got {value!r}")


def check_generator(name: str, generator: object) -> None:
    """TypeError unless ``generator`` is torch's or None, ValueError if it is not on the CPU."""
    if generator is None:
        return
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"{name}: generator must be a torch.Generator, got {type(generator).__name__}")
    if generator.device.type != "cpu":
        raise ValueError(f"{name}: plans are drawn on the CPU, got a generator on {generator.device}")
    if torch.compiler.is_compiling():
        raise ValueError(f"{name}: compiled graphs draw from torch's default generator; leave out generator=")


def convert_tensor(caller: str, argument: str, values: Any, device: torch.device | str = "cpu") -> Tensor:
    """Tensor of the numbers in an array or in nested lists; a tensor stays what it is.

    Raises:
        TypeError: ``values`` are not numbers, or not of one shape.
    """
    made: Tensor = values
    if not isinstance(values, Tensor):
        wanted = f"{caller}: {argument} must be a tensor, an array or a list of numbers"
        if isinstance(values, (Mapping, str, bytes)) or values is None:
            raise TypeError(f"{wanted}, got {type(values).__name__}")
        try:
            made = torch.tensor(values, device="cpu")
            if made.is_floating_point() and not hasattr(values, "dtype"):  # lists have the default dtype otherwise
                made = torch.tensor(values, device="cpu", dtype=torch.float32 if made.numel() else torch.int64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{wanted}, got {type(values).__name__}: {error}") from error
        made = made.to(device)
    if made.dtype in _WIDE:
        made = made.long()
    return made


def convert_labels(
    caller: str, labels: Any, batch: int, num_classes: int | None, device: torch.device | str = "cpu"
) -> Tensor:
    """Labels as a tensor, integer ``[batch]`` or soft ``[batch, K]``, checked.

    Args:
        caller: for messages.
        labels: a tensor, an array or lists; one-hot labels may be integers or bool.
        batch: B.
        num_classes: K, or None.
        device: for labels that are no tensor.

    Raises:
        TypeError: labels are no numbers.
        ValueError: they do not fit.
    """
    if hasattr(labels, "_fields"):
        raise ValueError(
            f"{caller}: labels must be integer [B] or soft [B, K], got {type(labels).__name__}; where one augmentation "
            "mixes what another one has mixed, give num_classes= to both"
        )
    made = convert_tensor(caller, "labels", labels, device)
    if _is_one_hot(made, num_classes):
        made = made.float()
    check_labels(caller, made, batch, num_classes)
    return made


def check_labels(caller: str, labels: Tensor, batch: int, num_classes: int | None) -> None:
    """ValueError unless ``labels`` are integer ``[batch]`` or soft ``[batch, K]`` and fit ``num_classes``."""
    soft = labels.is_floating_point()
    if labels.is_complex() or labels.dtype == torch.bool or labels.ndim != (2 if soft else 1):
        way = "; pass several classes of one image as labels.float()" if labels.ndim == 2 else ""
        raise ValueError(
            f"{caller}: labels must be integer [B] or float [B, K], got {labels.dtype} {list(labels.shape)}{way}"
        )
    if len(labels) != batch:
        raise ValueError(f"{caller}: {batch} images need {batch} labels, got {len(labels)}")
    if soft and num_classes not in (None, labels.shape[1]):
        raise ValueError(f"{caller}: num_classes={num_classes}, but the soft labels have {labels.shape[1]} classes")
    if not soft and num_classes is not None:
        check_num_classes(caller, num_classes, labels)


def check_kept_labels(caller: str, labels: Any, batch: int | None) -> None:
    """TypeError for annotations, ValueError unless there are ``batch`` labels (None: of one image), of any kind."""
    if isinstance(labels, Mapping) or (isinstance(labels, Tensor) and labels.ndim > 2):
        got = f"{list(labels.shape)}" if isinstance(labels, Tensor) else f"a {type(labels).__name__}"
        raise TypeError(
            f"{caller}: labels must be one per image, got {got}; masks, boxes and keypoints would not follow the "
            "pixels: use mosaicaug.torchvision.V2Transform, or apply_masks and the like with last_plan"
        )
    countable = hasattr(labels, "__len__") and not isinstance(labels, (str, bytes)) and getattr(labels, "ndim", 1) > 0
    if batch is not None and (not countable or len(labels) != batch):
        counted = len(labels) if countable else f"{labels!r}"
        raise ValueError(f"{caller}: {batch} images need {batch} labels, got {counted}")


def check_num_classes(caller: str, num_classes: int | None, labels: Tensor) -> None:
    """ValueError unless ``num_classes`` is above every label; labels on a GPU are not read back."""
    if num_classes is None:
        raise ValueError(f"{caller}: soft labels need num_classes, got None")
    if can_read(labels):
        low, high = (int(value) for value in torch.aminmax(labels))
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"{caller}: num_classes={num_classes} needs labels in 0..{num_classes - 1}, got {low}..{high}"
            )


def can_read(values: Tensor) -> bool:
    """True if values can be read at once: on the CPU, outside of compilers and of torch.func's transforms."""
    return (
        not torch.compiler.is_compiling()
        and values.device.type == "cpu"
        and values.numel() > 0
        and not is_transformed(values)
    )


def is_transformed(*values: Tensor | None) -> bool:
    """True if a transform of torch.func (grad, vmap, jvp) follows any of ``values``."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    return any(value is not None and wrapped(value) for value in values)


def exact_dtype(device: torch.device) -> torch.dtype:
    """Dtype of exact sums on ``device``: float64 where CPUs and CUDA have it, float32 elsewhere, as on MPS."""
    return torch.float64 if device.type in ("cpu", "cuda") else torch.float32


def _is_one_hot(labels: Tensor, num_classes: int | None) -> bool:
    """True for one-hot labels ``[B, K]``, K > 1, of any type; unread values are trusted if K is ``num_classes``."""
    if labels.ndim != 2 or labels.shape[1] == 1 or labels.is_floating_point() or labels.is_complex():
        return False
    if not can_read(labels):
        return labels.shape[1] == num_classes
    return bool(((labels == 1).sum(1) == 1).all() and ((labels != 0).sum(1) == 1).all())
