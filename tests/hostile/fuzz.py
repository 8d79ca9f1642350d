"""Fuzzing: random changes of valid files of every format; `python -m tests.hostile.fuzz --minutes 10`.

A change is reproduced by the seed and its number. Each must be read, or refused with ValueError or OSError; anything
else is kept in build/fuzz, where the file lies that did it. A process of its own reads, so that a crash is seen too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from bench.results import FOLDER, ROOT, describe_environment, write_results
from tests.hostile.formats import Format, make_formats

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILURES = ROOT / "build" / "fuzz"
RESULTS = FOLDER / "trust-fuzz.json"
_BATCH = 400  # changes that one process reads
_LONGEST = 10  # seconds that a file may take, on a busy machine
_MOST_MEMORY = 4 * 2**30  # bytes of address space beyond what a process begins with
_ODD_NUMBERS = (b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x7f\xff\xff\xff", b"\1\0\0\0")
_ODD_WORDS = (
    *("-1", "0", "0.5", "2147483648", "1e999", "NaN", "null", "true", "{}", "[]", '""', "[["),
    *("\0", "../../x", "\ufeff", "x" * 999),
)


@dataclass
class Outcome:
    """Counts of files that were read and refused, by format, and descriptions of what should not have been."""

    read: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        self.read += other.read
        self.refused += other.refused
        self.failures += other.failures


class TooSlowError(Exception):
    """A file took longer than `_LONGEST`."""


def mutate(content: bytes, source: random.Random, *, text: bool) -> bytes:
    """Change a file in one to four places, most often a little."""
    for _ in range(source.choice((1, 1, 2, 4))):
        place, kind = source.randrange(len(content) + 1), source.randrange(9)
        end = min(len(content), place + source.choice((1, 2, 4, 8, 64, len(content))))
        if kind == 0 and content:
            place = min(place, len(content) - 1)
            content = content[:place] + bytes([content[place] ^ 1 << source.randrange(8)]) + content[place + 1 :]
        elif kind == 1:
            content = content[:place] + source.randbytes(min(end - place, 16)) + content[end:]
        elif kind == 2:
            content = content[:place]
        elif kind == 3:
            content = content[:place] + content[end:]
        elif kind == 4:
            content = content[:end] + content[place:end] + content[end:]
        elif kind == 5:
            other = source.randrange(len(content) + 1)
            content = content[:place] + content[other : other + end - place] + content[end:]
        elif kind == 6:
            content = content[:place] + source.choice(_ODD_NUMBERS) + content[place + 4 :]
        elif text:
            content = _replace_word(content, source)
        else:
            content = content[:place] + source.choice(_ODD_NUMBERS) + content[place:]
    return content


def _replace_word(content: bytes, source: random.Random) -> bytes:
    """Replace a word or a number of a text by an odd one."""
    ends = [n for n, sign in enumerate(content) if sign in b' \n\t,:[]{}"']
    if len(ends) < 2:
        return content
    first = source.randrange(len(ends) - 1)
    return content[: ends[first] + 1] + source.choice(_ODD_WORDS).encode() + content[ends[first + 1] :]


def fuzz(room: Path, seed: int, numbers: range, mark: Path | None = None) -> Outcome:
    """Read changed files; number n is of format n modulo their number.

    Args:
        room: empty folder.
        seed: of all changes.
        numbers: of the changes to read.
        mark: gets the number and the format of the file that is read now, for whoever sees this process crash.
    """
    outcome, formats = Outcome(), make_formats(room)
    good = {name: (room / name.replace(" ", "-") / one.path).read_bytes() for name, one in formats.items()}
    names = list(formats)
    for number in numbers:
        name = names[number % len(names)]
        place = room / name.replace(" ", "-")
        path = place / formats[name].path
        content = mutate(good[name], random.Random(f"{seed} {number}"), text=formats[name].text)
        path.write_bytes(content)
        if mark is not None:
            mark.write_text(f"{number} {name}")
        problem = _read(formats[name], place, outcome, name)
        beside = sorted(one.name for one in room.iterdir() if one.name.replace("-", " ") not in _plain(names))
        if beside:
            problem = f"it made {beside}"
        if problem is not None:
            outcome.failures.append(f"seed {seed}, number {number}, {name}: {problem}")
            FAILURES.mkdir(parents=True, exist_ok=True)
            (FAILURES / f"{seed}-{number}-{place.name}").write_bytes(content)
        path.write_bytes(good[name])
    return outcome


def _plain(names: list[str]) -> set[str]:
    return {name.replace("-", " ") for name in names}


def _read(one: Format, place: Path, outcome: Outcome, name: str) -> str | None:
    """Read a changed file, and count what became of it; returns what is wrong."""
    try:
        with _limit_time(), warnings.catch_warnings(action="ignore"):
            one.read(place)
        outcome.read[name] += 1
    except (ValueError, OSError) as error:
        if "\n" in str(error).replace(str(place), "") or len(str(error)) > 2000:
            return f"no clear line: {str(error)[:200]!r}"
        outcome.refused[name] += 1
    except (Exception, TooSlowError) as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None


@contextmanager
def _limit_time() -> Iterator[None]:
    def stop(_: int, __: FrameType | None) -> None:
        raise TooSlowError(f"over {_LONGEST} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _work(seed: int, numbers: range, room: Path, mark: Path, result: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[1]
    size = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (size + _MOST_MEMORY, limit))
    outcome = fuzz(room, seed, numbers, mark)
    result.write_text(json.dumps([outcome.read, outcome.refused, outcome.failures]))


def fuzz_apart(seed: int, numbers: range) -> Outcome:
    """Read changed files in a process of its own; one that crashes it is a failure, and the rest is gone on with."""
    outcome = Outcome()
    while numbers:
        with tempfile.TemporaryDirectory() as folder:
            room, mark, result = Path(folder, "room"), Path(folder, "mark"), Path(folder, "result")
            room.mkdir()
            process = multiprocessing.get_context("fork").Process(
                target=_work, args=(seed, numbers, room, mark, result)
            )
            process.start()
            process.join(_LONGEST * len(numbers))
            if process.is_alive():
                process.kill()
                process.join()
            if result.exists():
                read, refused, failures = json.loads(result.read_text())
                outcome.add(Outcome(Counter(read), Counter(refused), failures))
                break
            number, _, name = mark.read_text().partition(" ") if mark.exists() else (str(numbers[0]), "", "?")
            outcome.failures.append(f"seed {seed}, number {number}, {name}: ended with {process.exitcode}")
            FAILURES.mkdir(parents=True, exist_ok=True)
            for path in (room / name.replace(" ", "-")).rglob("*"):
                if path.is_file():
                    shutil.copy(path, FAILURES / f"{seed}-{number}-crash-{path.name}")
            numbers = range(int(number) + 1, numbers.stop)
    return outcome


def fuzz_for(minutes: float, seed: int) -> Outcome:
    """Read changed files for so many minutes."""
    outcome, end, first = Outcome(), time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end:
        outcome.add(fuzz_apart(seed, range(first, first + _BATCH)))
        first += _BATCH
    return outcome


def main(words: list[str]) -> int:
    """Fuzz for some minutes, and keep the counts in bench/results; the exit code is 1 if something failed."""
    parser = argparse.ArgumentParser(description="Random changes of valid files of every format that is read.")
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=None, help="another one each time by default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args(words)
    seed = int(time.time()) if chosen.seed is None else chosen.seed
    outcome = fuzz_for(chosen.minutes, seed)
    rows = [
        {"format": name, "read": outcome.read[name], "refused": outcome.refused[name]}
        for name in sorted(outcome.read | outcome.refused)
    ]
    count = outcome.read.total() + outcome.refused.total() + len(outcome.failures)
    facts = {"seed": seed, "minutes": chosen.minutes, "inputs": count, "failures": len(outcome.failures)}
    write_results(chosen.out, {**describe_environment("cpu"), **facts}, rows)
    print(f"{count} files, {outcome.refused.total()} refused, {len(outcome.failures)} failures; {chosen.out}")
    for failure in outcome.failures[:50]:
        print(failure)
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
