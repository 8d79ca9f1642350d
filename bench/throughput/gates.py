"""Gates of the throughput benchmark: a side whose pixels break the law of its case is not timed.

A few small batches of coded images go through the side; `laws` reads from its output what was drawn.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bench.measure import Run
from bench.throughput.batch import Batch, add_labels, stored_size
from bench.throughput.cases import Case
from bench.throughput.laws import LAWS, GateError, Observed
from bench.throughput.sides import make_run, read_images

CALLS = 8  # of one side, each with its own draw
BATCH = 4
SIZE = 224  # a multiple of every grid that is measured, and small enough for the code


def check_side(case: Case, side: str, device: str, *, size: int = SIZE) -> None:
    """Run a side on small batches and check what comes out.

    Raises:
        GateError: it breaks the law of the case; the message says how.
        UnfitError: it cannot run the case.
    """
    if case.task == "draw" or (case.task, side) == ("pipeline", "copy"):
        return  # these make no images
    check_runs(case, device, lambda small, batch: make_run(small, side, batch), size=size, copies=side == "copy")


def check_runs(
    case: Case, device: str, make: Callable[[Case, Batch], Run], *, size: int = SIZE, copies: bool = False
) -> None:
    """Check any maker of calls like `check_side`; ``copies`` if its output must equal its input."""
    _seed()
    small = replace(case, batch=BATCH, size=size)
    images = make_images(small).to(device)
    outputs = []
    for _ in range(CALLS):  # each from a fresh batch, since a side may write into its input
        result = make(small, add_labels(images.clone(), BATCH))()
        outputs.append(read_images(result).cpu())
    if not copies:
        check_outputs(small, images.cpu(), outputs)
    elif any(not torch.equal(output, images.cpu()) for output in outputs):
        raise GateError("the copy differs from its source")


def make_images(case: Case) -> Tensor:
    """Coded images: image, row and column in channels 0, 1 and 2; random pixels where whole images are blended.

    Every code is below 256 and so exact in every dtype.
    """
    stored = case.task == "pipeline"
    count, size = (2 * case.batch, stored_size(case.size)) if stored else (case.batch, case.size)
    if case.augmentation == "mixup":
        images = torch.randint(0, 256, (count, 3, size, size))
    else:
        codes = torch.meshgrid(torch.arange(count), torch.arange(size), torch.arange(size), indexing="ij")
        images = torch.stack(codes, 1)
    layout = torch.channels_last if case.layout == "channels_last" else torch.contiguous_format
    return images.to(torch.uint8 if stored else case.torch_dtype).contiguous(memory_format=layout)


def check_outputs(case: Case, images: Tensor, outputs: Sequence[Tensor]) -> None:
    """Check every output of ``images`` against the law of ``case``, and its draws against ``case.per``.

    Raises:
        GateError: a law is broken; the message says how.
    """
    for output in outputs:
        if tuple(output.shape) != case.shape:
            raise GateError(f"made images of {list(output.shape)}, not {list(case.shape)}")
    calls = [LAWS[case.augmentation](case, images.double(), output.double()) for output in outputs]
    if (case.augmentation, case.level) not in (("rmg", 0), ("jigsaw", 1)):  # which have nothing to draw
        _check_chance(case, calls)
    if case.task == "pipeline":
        flips = {window[2] for call in calls for window in call.windows}
        if len(flips) < 2 or len({window[:2] for call in calls for window in call.windows}) < 2:
            raise GateError("crops or flips never vary")


def _seed() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what timm draws from


def _check_chance(case: Case, calls: Sequence[Observed]) -> None:
    if not any(call.changed for call in calls):
        raise GateError(f"nothing was changed in {len(calls)} calls")
    shared = [_are_equal(call.draws) for call in calls if call.draws]
    if case.per == "batch" and not all(shared):
        raise GateError("draws differ within a batch, though the case draws once per batch")
    if case.per == "sample" and all(shared):
        raise GateError("all images of a batch share one draw, though the case draws per sample")


def _are_equal(draws: Sequence[Sequence[float]]) -> bool:
    """Test draws for equality, up to the effect of rounded blended pixels on a weight."""
    spread = torch.tensor(draws, dtype=torch.float64)
    return bool((spread.amax(0) - spread.amin(0)).max() <= 0.02)
