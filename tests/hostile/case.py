"""Hostile inputs as data: what is laid out, what a user does with it, and what must happen."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOM = "room"  # folder in which a case lays out its files; nothing may appear beside it
CANARY = "code-was-run"  # what foreign code in an input would make there
_MOST_MEMORY = 400e6  # bytes that a case may take beyond what its process has
_LONGEST = 1500  # characters of a message


@dataclass(frozen=True)
class Case:
    """A hostile input.

    Args:
        what: the input, in words of the page.
        use: lays it out in an empty folder, and uses it as a user would. It raises what refuses the input, or checks
            what became of it.
        says: part of the one line that refuses it; None where it is survived.
        then: what happens to one that is survived, in words of the page; or what else is true of one that is refused.
        keeps: ends of the names of unfinished files that stay, so that the same command goes on from there.
    """

    what: str
    use: Callable[[Path], object]
    says: str | None = None
    then: str = ""
    keeps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.says or self.then


def carry_out(case: Case, folder: Path, kinds: tuple[type[Exception], ...] = (ValueError, OSError)) -> None:
    """Use the input of a case, and check that it is refused in one line or survived, and does no harm.

    Args:
        folder: empty.
        kinds: errors that users are shown in one line.
    """
    room = folder / ROOM
    room.mkdir()
    gc.freeze()  # a collection of all that torch has costs 0.3 s; what the case makes is enough
    threads, files = {*threading.enumerate()}, count_open_files()
    before = start_peak()
    try:
        case.use(room)
    except kinds as error:
        line = str(error)
        assert case.says is not None, f"{case.what} is to be survived: {line}"
        assert case.says in line, line
        assert "\n" not in line, line
        assert len(line) <= _LONGEST, line
    else:
        assert case.says is None, f"{case.what} is to be refused"
    assert read_peak() - before < _MOST_MEMORY, "memory"
    assert [path.name for path in folder.iterdir()] == [ROOM], "something was written elsewhere"
    left = [path.name for path in room.rglob("*") if path.name.endswith((".part", ".unpacked"))]
    assert [name for name in left if not name.endswith(case.keeps or ("\0",))] == []
    gc.collect()  # errors that hold each other
    gc.unfreeze()
    for thread in {*threading.enumerate()} - threads:
        thread.join(5)  # some are told to end, and not waited for
        assert not thread.is_alive(), "a thread is left"
    assert count_open_files() <= files, "files are left open"


def count_open_files() -> int:
    """Count the files, pipes and sockets that this process holds open, but for the fonts that matplotlib keeps."""
    count = 0
    for handle in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the folder itself, which is closed again
            count += not handle.readlink().name.endswith((".ttf", "fd"))
    return count


def start_peak() -> int:
    """Start to measure the most memory that this process takes, and return what it has now, bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return read_peak()


def read_peak() -> int:
    """Read the most memory since `start_peak`, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
