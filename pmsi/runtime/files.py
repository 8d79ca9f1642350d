"""Atomic file writes: a file is written beside its place and renamed when it is complete."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Callable, Iterable
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


def expand_home(path: Path) -> Path:
    """Expand ``~`` and ``~user`` at the beginning of a path; ValueError where that home is not known."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: {error}; give the path in full, or as ./{path}") from error


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
    beside = path.with_name(
        f".{path.name}.{secrets.token_hex(4)}{PART}"
    )  # a random name: another process may write the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        with beside.open("r+b") as file:  # Windows syncs only what is open for writing
            _sync(file.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        beside.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        raise OSError(f"could not write {path}: {error}; what stood there before is untouched") from error
    finally:
        with suppress(OSError):  # the folder may be a file, or gone
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``."""
    replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def write_json(path: Path, values: Any) -> None:
    """Replace ``path`` by readable JSON; NaN is refused."""
    write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Read what `write_json` wrote; None without the file, and ValueError if it is damaged."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(f"{path} is damaged ({error}); remove it, or choose another --run folder") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it must hold a JSON object; remove it, or choose another --run folder")
    return found


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Replace ``path`` by JSON lines, one record each."""
    write_text(path, "".join(f"{json.dumps(record)}\n" for record in records))


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
