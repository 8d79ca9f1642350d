"""Which training images are held out, so that settings are chosen without a look at the test images."""

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
