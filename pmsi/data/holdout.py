"""Subsets of the training images: some held out to choose settings by, and the first of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class ChosenRows(NamedTuple):
    """Rows of the training images, and the words that say which.

    Args:
        train: rows to train on.
        held_out: rows to test on instead of the data set's own test images; none where nothing is held out.
        rule: to be added to the rule of the split.
    """

    train: list[int]
    held_out: list[int]
    rule: str


def choose_rows(
    labels: Sequence[int], classes: Sequence[str], hold_out: int | None = None, train_per_class: int | None = None
) -> ChosenRows:
    """Choose which training images to train on, and which to hold out.

    Args:
        labels: of the training images, in their order; they index ``classes``.
        classes: names, for messages.
        hold_out: n; every n-th image of each class is held out.
        train_per_class: n; of those not held out, the first n of each class are trained on.

    Raises:
        ValueError: ``hold_out`` below 2 leaves nothing to train on; ``train_per_class`` is below 1, or a class has
            fewer images.

    >>> choose_rows([0, 1, 0, 0, 1, 0], ["wren", "robin"], hold_out=2)[:2]
    ([0, 1, 3], [2, 4, 5])
    >>> choose_rows([0, 1, 0, 0, 1, 0], ["wren", "robin"], train_per_class=2)[:2]
    ([0, 1, 2, 4], [])
    >>> choose_rows([0, 1, 0, 0, 1, 0], ["wren", "robin"], train_per_class=3)
    Traceback (most recent call last):
    ValueError: data: train_per_class is 3, but class robin has 2 training images; ask for 2 or fewer
    """
    train, held_out, rule = list(range(len(labels))), [], ""
    if hold_out is not None:
        if hold_out < 2:
            raise ValueError(f"data: hold_out must be 2 or more, so that images are left to train on; got {hold_out}")
        numbers = _number_in_class(labels)
        held_out = [row for row in train if numbers[row] % hold_out == 0]
        train = [row for row in train if numbers[row] % hold_out != 0]
        rule += (
            f"; tested on training images {hold_out}, {2 * hold_out}, ... of each class, and on none of its test images"
        )
    if train_per_class is not None:
        left = [labels[row] for row in train]
        _check_per_class(left, classes, train_per_class, "" if hold_out is None else " that are not held out")
        train = [row for row, number in zip(train, _number_in_class(left), strict=True) if number <= train_per_class]
        rule += f"; trained on the first {train_per_class} training images of each class"
    return ChosenRows(train, held_out, rule)


def _number_in_class(labels: Sequence[int]) -> list[int]:
    """The number of each image among those of its class, from 1."""
    seen: Counter[int] = Counter()
    numbers = []
    for label in labels:
        seen[label] += 1
        numbers.append(seen[label])
    return numbers


def _check_per_class(labels: Sequence[int], classes: Sequence[str], count: int, which: str) -> None:
    if count < 1:
        raise ValueError(f"data: train_per_class must be 1 or more, got {count}")
    counts = Counter(labels)
    label = min(sorted(counts), key=lambda label: counts[label], default=None)
    if label is not None and counts[label] < count:
        has = f"{counts[label]} training image{'s' if counts[label] > 1 else ''}{which}"
        raise ValueError(
            f"data: train_per_class is {count}, but class {classes[label]} has {has}; ask for {counts[label]} or fewer"
        )
