"""Files that are either whole or not there: written beside their place and renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` fill a file beside ``path``, then put it in place; on failure what was there stays.

    Raises:
        OSError: the file could not be written (a full disk, no permission).
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        raise OSError(f"could not write {path}: {error}; what stood there before is untouched") from error
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``."""
    replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def write_json(path: Path, values: Any) -> None:
    """Replace ``path`` by readable JSON; NaN is refused."""
    write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Replace ``path`` by JSON lines, one record each."""
    write_text(path, "".join(f"{json.dumps(record)}\n" for record in records))


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace ``path`` by ``state`` (tensors and plain values)."""
    replace_file(path, lambda beside: torch.save(state, beside))


def load_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote; nothing in the file is executed.

    Raises:
        FileNotFoundError: no such file. ValueError: it is damaged, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a file that is none of its own
        raise ValueError(f"{path} is damaged, or no file of tensors that torch can load safely") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote.

    Raises:
        FileNotFoundError: no such file. ValueError: not one of our checkpoints.
    """
    state = load_tensors(path)
    if not isinstance(state, dict) or "identity" not in state:
        raise ValueError(f"{path} is not a checkpoint of pmsi")
    return state
