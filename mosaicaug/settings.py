"""Settings of augmentations: attributes that are checked whenever they are set, and that every call reads anew."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from mosaicaug.checks import check_choice, check_integer, check_number
from mosaicaug.sampling import Per
from mosaicaug.zorder import Permutation

T = TypeVar("T")


class Setting(Generic[T]):
    """Argument of an augmentation as an attribute: checked whenever it is set, and read anew by every call.

    Args:
        check: of the class's name, the setting's name and a value; returns the value to keep, or raises.
    """

    def __init__(self, check: Callable[[str, str, Any], T]) -> None:
        self.check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        # Under the setting's own name, Dynamo of torch 2.11 takes the look-up in __dict__ for another call of __get__.
        self.stored = f"_{name}"

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        if instance is None:
            raise AttributeError(f"{self.name} is a setting of each augmentation, not of the class")
        value: T = getattr(instance, self.stored)
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        setattr(instance, self.stored, self.check(type(instance).__name__, self.name, value))


class WithSettings(Generic[T]):
    """Class method that, called on an instance, takes the settings and the mode that the instance has at that moment.

    Args:
        method: its first argument is the class, or in its place what makes an augmentation of the instance's mode.
    """

    def __init__(self, method: Callable[..., T]) -> None:
        self.method = method
        functools.update_wrapper(self, method)  # type: ignore[arg-type]

    def __get__(self, instance: Any, owner: type) -> Callable[..., T]:
        if instance is None:
            return functools.partial(self.method, owner)
        settings = {name: getattr(instance, name) for name in instance.settings}
        return functools.partial(self.method, lambda *a, **kw: owner(*a, **kw).train(instance.training), **settings)


def check_per(name: str, argument: str, value: Any) -> Per:
    """ValueError unless ``value`` is "sample" or "batch"; returns it."""
    check_choice(name, argument, value, Per)
    per: Per = value
    return per


def check_permutation(name: str, argument: str, value: Any) -> Permutation:
    """ValueError unless ``value`` is "uniform" or "cyclic"; returns it."""
    check_choice(name, argument, value, Permutation)
    permutation: Permutation = value
    return permutation


def check_alpha(name: str, argument: str, value: Any) -> float:
    """ValueError unless ``value`` is a finite number above 0; returns it as a float."""
    number = check_number(name, argument, value)
    if not 0 < number < float("inf"):
        raise ValueError(f"{name}: {argument} must be above 0, got {value}")
    return number


def check_classes(name: str, argument: str, value: Any) -> int | None:
    """ValueError unless ``value`` is a number of classes or None; returns it."""
    return None if value is None else check_integer(name, argument, value, 1)


def check_weights(name: str, argument: str, value: Any) -> list[float]:
    """ValueError unless ``value`` are numbers of 0 or more, not all 0; returns them."""
    if not hasattr(value, "__iter__"):
        raise TypeError(f"{name}: {argument} must be a list of numbers, got {value!r}")
    weights = [check_number(name, argument, weight) for weight in value]
    if not weights or not min(weights) >= 0 or not 0 < sum(weights) < float("inf"):
        raise ValueError(f"{name}: needs {len(weights)} {argument} of 0 or more, not all 0, got {weights}")
    return weights
