"""Atomic file writes: a file is written beside its place and renamed when it is complete."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# Windows, and some network and union file systems, refuse to sync a folder or to open one; a failing or full disk is
# none of these.
_REFUSALS = {
    *(errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF),
    *(errno.EACCES, errno.EPERM, errno.EISDIR),
}
PART = ".part"  # ends the names of files that are being written
_MOST = 2**30  # bytes of a table or a JSON file, where that of 14 million images has 0.8 GB


def expand_home(path: Path) -> Path:
    """Expand ``~`` and ``~user`` at the beginning of a path; ValueError where that home is not known."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: {error}; give the path in full, or as ./{path}") from error


def escape(text: str) -> str:
    """Escape what is not printable: line breaks, codes of terminals, and bytes that are no text in names of files."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def describe_error(error: BaseException, longest: int = 300) -> str:
    """Text of an error on one line, cut where it is long: decoders and servers say what they like."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def replace_file(path: Path, write: Callable[[Path], object], *, keep: Path | None = None) -> None:
    """Replace a file: ``write`` fills another beside ``path``, which is renamed; on failure the old one stays.

    Several processes may replace one file: the last one wins. A process that is killed leaves what it wrote beside it.

    Args:
        path: file to replace; its folder is made.
        write: called with the path to fill.
        keep: new path of the old file; by default it is deleted.

    Raises:
        OSError: the file could not be written (a full disk, no permission).
    """
    path = expand_home(path)
    keep = None if keep is None else expand_home(keep)
    # A random name: another process may write the same file.
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        with beside.open("r+b") as file:  # Windows syncs only what is open for writing
            _sync(file.fileno())
        if keep is not None:
            with suppress(FileNotFoundError):  # there is none yet, or another process has just moved it
                path.replace(keep)
        beside.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        raise OSError(f"could not write {path}: {error}; what stood there before is untouched") from error
    finally:
        with suppress(OSError):  # the folder may be a file, or gone
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``; bytes of file names that are no text are written as escapes."""
    replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8", errors="backslashreplace"))


def check_file(path: Path) -> None:
    """ValueError for a folder, a pipe or a device, which has no end or keeps its reader waiting."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file but a folder, a pipe or a device")


def read_bytes(path: Path) -> bytes:
    """Read a file whole; ValueError for what is no file, or has over 1 GB."""
    check_file(path)
    if path.stat().st_size > _MOST:
        raise ValueError(f"{path} has over {_MOST // 10**6} MB, which is no table")
    return path.read_bytes()


def write_json(path: Path, values: Any) -> None:
    """Replace ``path`` by readable JSON; NaN is refused."""
    write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Read what `write_json` wrote; None without the file.

    Raises:
        ValueError: it is damaged, or holds what `write_json` does not write: a name twice, or a number that is not
            finite.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(
            read_bytes(path),
            object_pairs_hook=_make_object,
            parse_float=_parse_number,
            parse_constant=_parse_number,
        )
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or brackets in thousands of brackets
        raise ValueError(f"{path} is damaged ({error}); remove it, or choose another --run folder") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it must hold a JSON object; remove it, or choose another --run folder")
    return found


def check_fields(values: Any, kinds: Mapping[Any, tuple[type, ...]], path: Path) -> None:
    """ValueError unless ``values``, of the file ``path``, has each field in one of its types; one left out is None."""
    for name, allowed in kinds.items():
        value = values.get(name) if isinstance(values, dict) else values
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            wanted = " or ".join(kind.__name__ for kind in allowed)
            raise ValueError(f"{path} is damaged: {name} must be {wanted}, got {type(value).__name__}; remove it")


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Replace ``path`` by JSON lines, one record each."""
    write_text(path, "".join(f"{json.dumps(record)}\n" for record in records))


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return values


def _parse_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def _sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` outlive a crash of the machine, where the system can open a folder."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        return
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    """Wait until what was written is on the disk, where the file system can."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
