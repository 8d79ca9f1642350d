"""Subsets of the training images: some held out to choose settings by, and the first of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def find_held_out(labels: Sequence[int], every: int) -> list[bool]:
    """Which training images to hold out: every so-manieth of each class, in their order.

    Raises:
        ValueError: ``every`` below 2 leaves nothing to train on.

    >>> find_held_out([0, 1, 0, 0, 1, 0], every=2)
    [False, False, True, False, True, True]
    """
    if every < 2:
        raise ValueError(f"data: hold_out must be 2 or more, so that images are left to train on; got {every}")
    seen: Counter[int] = Counter()
    held = []
    for label in labels:
        seen[label] += 1
        held.append(seen[label] % every == 0)
    return held


def describe_held_out(every: int) -> str:
    """What `find_held_out` does, to be added to the rule of a split."""
    return f"; tested on training images {every}, {2 * every}, ... of each class, and on none of its test images"


def find_first(labels: Sequence[int], count: int) -> list[bool]:
    """Which training images are among the first ``count`` of their class.

    Raises:
        ValueError: ``count`` is below 1, or a class has fewer.

    >>> find_first([0, 1, 0, 0, 1, 0], count=2)
    [True, True, True, False, True, False]
    """
    if count < 1:
        raise ValueError(f"data: train_per_class must be 1 or more, got {count}")
    least = min(Counter(labels).values(), default=0)
    if least < count:
        raise ValueError(
            f"data: train_per_class is {count}, but a class has only {least} training images; ask for fewer"
        )
    seen: Counter[int] = Counter()
    first = []
    for label in labels:
        seen[label] += 1
        first.append(seen[label] <= count)
    return first


def describe_first(count: int) -> str:
    """What `find_first` does, to be added to the rule of a split."""
    return f"; trained on the first {count} training images of each class"
