"""Uploads through memory that is used again: never a row whose copy is still on its way."""

from __future__ import annotations

import pytest
import torch

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
