"""Random generators derived from a key such as (seed, epoch, purpose)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator


def make_generator(*key: int) -> Generator:
    """A generator that is a function of its key, e.g. (seed, epoch, purpose): nothing else has to be kept to resume."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
