"""Random changes of valid files of every format are read or refused; `make fuzz` tries many more."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.hostile import fuzz
from tests.hostile.formats import Format, make_formats


@pytest.mark.parametrize("seed", [0, 1])
def test_changed_files_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    outcome = fuzz.fuzz(tmp_path, seed, range(150))
    assert outcome.failures == []
    assert outcome.read.total() > 10
    assert outcome.refused.total() > 90


def test_every_format_is_read_as_it_is(tmp_path: Path) -> None:
    for name, one in make_formats(tmp_path).items():
        one.read(tmp_path / name.replace(" ", "-"))


def test_changes_are_those_of_their_seed() -> None:
    content = bytes(range(200))
    changed = [fuzz.mutate(content, random.Random(seed), text=True) for seed in (*range(50), *range(50))]
    assert changed[:50] == changed[50:]
    assert len({*changed}) > 40


def _read_badly(place: Path) -> None:
    content = (place / "a").read_bytes()
    if len(content) < 10:
        raise KeyError("a reader that takes too much for granted")
    if len(content) > 10:
        os._exit(11)


def test_what_should_not_have_been_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of another kind, and a crash of the process."""

    def make(room: Path) -> dict[str, Format]:
        (room / "bad").mkdir()
        (room / "bad" / "a").write_bytes(b"0123456789")
        return {"bad": Format("a", _read_badly)}

    monkeypatch.setattr(fuzz, "make_formats", make)
    monkeypatch.setattr(fuzz, "FAILURES", tmp_path / "failures")
    outcome = fuzz.fuzz_apart(0, range(25))
    errors, crashes = ([one for one in outcome.failures if text in one] for text in ("KeyError", "ended with 11"))
    assert errors
    assert crashes
    assert len(errors) + len(crashes) == len(outcome.failures)
    assert (tmp_path / "failures").is_dir()
