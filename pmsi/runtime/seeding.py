"""Random generators derived from a key such as (seed, epoch, purpose)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator


def make_generator(*key: int) -> Generator:
    """Make a generator that is a function of its key, e.g. (seed, epoch, purpose): a resumed run needs no other state.

    >>> import torch
    >>> first, second = (torch.rand(3, generator=make_generator(0, 7)) for _ in range(2))
    >>> torch.equal(first, second)
    True
    """
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
