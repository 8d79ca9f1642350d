"""Uploads through memory that is used again: never a row whose copy is still on its way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mosaicaug.backends.triton import upload
from mosaicaug.backends.triton.upload import Staging, upload_once


class Event:
    """Event of a GPU that finishes a copy when it is told to."""

    def __init__(self) -> None:
        self.finished = True

    def record(self) -> None:
        self.finished = False

    def query(self) -> bool:
        return self.finished


@pytest.fixture
def events() -> list[Event]:
    return [Event() for _ in range(3)]


def make_staging(events: list[Event]) -> Staging:
    rows = torch.zeros(len(events), 4, dtype=torch.int32).unbind()
    return Staging(rows, events, torch.zeros(4, dtype=torch.int32))  # type: ignore[arg-type]


def test_rows_take_turns_and_the_words_are_the_last(events: list[Event]) -> None:
    staging = make_staging(events)
    for number in range(3):
        words = staging.upload(torch.full((4,), number, dtype=torch.int32))
        assert words is staging.words
        assert words.tolist() == [number] * 4
    assert [row.tolist() for row in staging.rows] == [[0] * 4, [1] * 4, [2] * 4]


def test_a_row_on_its_way_is_left_alone(events: list[Event]) -> None:
    staging = make_staging(events)
    for number in range(3):
        staging.upload(torch.full((4,), number, dtype=torch.int32))
    fresh = staging.upload(torch.full((4,), 7, dtype=torch.int32))
    assert fresh is not staging.words
    assert fresh.tolist() == [7] * 4
    assert [row[0].item() for row in staging.rows] == [0, 1, 2]
    events[0].finished = True
    assert staging.upload(torch.full((4,), 8, dtype=torch.int32)) is staging.words
    assert [row[0].item() for row in staging.rows] == [8, 1, 2]


def test_a_cpu_reads_the_words_where_they_are() -> None:
    words = torch.arange(4, dtype=torch.int32)
    assert upload_once(words, torch.device("cpu")) is words


def test_memory_is_taken_once_for_each_stream_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[Any, ...]] = []
    empty = torch.empty

    def take(*shape: int, dtype: torch.dtype, pin_memory: bool = False, device: Any = "host") -> Tensor:
        taken.append((*shape, dtype, pin_memory, str(device)))
        return empty(*shape, dtype=dtype)

    monkeypatch.setattr(upload, "_stagings", {})
    monkeypatch.setattr(upload, "MOST_STAGINGS", 3)
    monkeypatch.setattr(torch, "empty", take)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    streams = iter([7, 7, 8, 7, 7, 7])
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda _: next(streams), raising=False)
    device = torch.device("cuda", 0)
    for number in range(3):  # two on one stream, one on another
        assert upload.upload_once(torch.full((4,), number, dtype=torch.int32), device).tolist() == [number] * 4
    one = [(upload.SLOTS, 4, torch.int32, True, "host"), (4, torch.int32, False, "cuda:0")]
    assert taken == one * 2
    kept = []
    for length in (5, 6, 7):
        upload.upload_once(torch.zeros(length, dtype=torch.int32), device)
        kept.append(len(upload._stagings))
    assert kept == [3, 1, 2]
