"""Uploads: a launch's small tensors, on their way to the GPU in one row of words, through memory that is used again."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SLOTS = 8  # uploads that may be on their way at once before memory is taken anew
MOST_STAGINGS = 64  # kept: one for each length of words, stream and thread


@dataclass
class Staging:
    """Memory for rows of words of one length, used again by every launch on one stream.

    The words on the GPU are overwritten in the order of the stream, so after the launch that reads them. A row of the
    host is overwritten once its copy is done; if all are on their way, a row is uploaded through fresh memory.

    Args:
        rows: pinned, int32 ``[length]`` each.
        done: an event for each row, recorded behind its copy.
        words: int32 ``[length]`` on the GPU.
    """

    rows: Sequence[Tensor]
    done: Sequence[torch.cuda.Event]
    words: Tensor
    turn: int = 0

    def upload(self, words: Tensor) -> Tensor:
        """Copy words to the GPU; they stay there until the next upload."""
        row, done = self.rows[self.turn], self.done[self.turn]
        if not done.query():  # type: ignore[no-untyped-call]
            return upload(words, self.words.device)
        self.turn = (self.turn + 1) % len(self.rows)
        row.copy_(words)
        self.words.copy_(row, non_blocking=True)
        done.record()
        return self.words


_stagings: dict[tuple[int | None, int, int, int], Staging] = {}


def upload_once(words: Tensor, device: torch.device) -> Tensor:
    """Copy words to the device for the next launch on the current stream, and for no longer."""
    if device.type != "cuda":
        return upload(words, device)
    # A thread has rows of its own: another one might come between writing a row and launching.
    key = device.index, torch._C._cuda_getCurrentRawStream(device.index), threading.get_ident(), len(words)
    staging = _stagings.get(key)
    if staging is None:
        if len(_stagings) >= MOST_STAGINGS:
            _stagings.clear()
        rows = torch.empty(SLOTS, len(words), dtype=torch.int32, pin_memory=True).unbind()
        events = [torch.cuda.Event() for _ in rows]  # type: ignore[no-untyped-call]
        staging = _stagings[key] = Staging(rows, events, torch.empty(len(words), dtype=torch.int32, device=device))
    return staging.upload(words)


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Copy to fresh memory of the device, without the host waiting for it."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
