"""Checkpoints with a checksum: saved atomically, the last two kept, damaged ones refused."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pmsi.runtime.files import expand_home, replace_file


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace ``path`` by ``state`` (tensors and plain values) and its checksum; `previous_path` is what was there."""
    whole = {**state, "checksum": _compute_checksum(state)}
    replace_file(path, lambda beside: torch.save(whole, beside), keep=previous_path(path))


def previous_path(path: Path) -> Path:
    """Path of the checkpoint before the last one."""
    return path.with_name(f"previous{path.suffix}")


def load_tensors(path: Path) -> Any:
    """Load what ``torch.save`` wrote; nothing in the file is executed.

    Raises:
        FileNotFoundError: no such file. ValueError: it is damaged, or holds more than tensors and plain values.
    """
    path = expand_home(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a file that is none of its own
        raise ValueError(f"{path} is damaged, or no file of tensors that torch can load safely") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load what `save_checkpoint` wrote.

    Raises:
        FileNotFoundError: no such file. ValueError: not one of our checkpoints, or it is damaged.
    """
    state = load_tensors(path)
    if not isinstance(state, dict) or not isinstance(state.get("identity"), dict):
        raise ValueError(f"{path} is not a checkpoint of pmsi")
    if state.pop("checksum", None) != _compute_checksum(state):
        raise ValueError(f"{path} is damaged: its checksum does not match what it holds")
    return state


def load_newest(path: Path) -> dict[str, Any] | None:
    """Load the checkpoint at ``path``, or with a warning the one before if that is damaged; None if there is none.

    Raises:
        ValueError: there are checkpoints, and all are damaged.
    """
    damage = []
    for candidate in (path, previous_path(path)):
        try:
            state = load_checkpoint(candidate)
        except FileNotFoundError:
            continue
        except ValueError as error:
            damage.append(str(error))
            continue
        if damage:
            warnings.warn(f"{damage[0]}; going on from {candidate.name}, which was saved before", stacklevel=2)
        return state
    if damage:
        raise ValueError(f"{'; '.join(damage)}; remove them to start anew")
    return None


# Names of an identity that earlier versions did not write; where they are missing, they are not compared.
_LATER = {"class_names", "labels_crc32", "files_crc32"}


def check_identity(found: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    """Check that a stored run is the one that was asked for; ValueError names everything that differs.

    Places are not compared: a data set that was moved is told by what it holds.
    """
    ignored = {"root", *(_LATER - found.keys())}
    if "files_crc32" in found and "files_crc32" in wanted:
        ignored.add("data_crc32")  # of files it has their times of change, which a copy does not keep
    differs = [
        _describe_difference(name, found.get(name), wanted.get(name))
        for name in sorted((found.keys() | wanted.keys()) - ignored)
        if found.get(name) != wanted.get(name)
    ]
    if differs:
        raise ValueError(f"{path} belongs to another run: {'; '.join(differs)}. Choose another --run folder")


def load_parts(state: dict[str, Any], parts: Mapping[str, Any], path: Path) -> None:
    """Load what a checkpoint holds of each part of a run; ValueError if it is of another version."""
    for name, part in parts.items():
        try:
            part.load_state_dict(state[name])
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            first = str(error).partition("\n")[0]
            raise ValueError(
                f"{path} does not fit: its part {name!r} is of another version of pmsi ({first}); use that version"
            ) from error


def _describe_difference(name: str, found: Any, wanted: Any) -> str:
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        row = next(row for row, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1])
        name, found, wanted = f"{name}[{row}]", found[row], wanted[row]
    return f"{name} is {_brief(found)} there, {_brief(wanted)} was asked for"


def _compute_checksum(tree: Any, crc: int = 0) -> int:
    """CRC-32 of nested dicts and lists of tensors and plain values."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            crc = _compute_checksum(value, zlib.crc32(repr(key).encode(), crc))
        return crc
    if isinstance(tree, list | tuple):
        for value in tree:
            crc = _compute_checksum(value, crc)
        return zlib.crc32(str(len(tree)).encode(), crc)
    if isinstance(tree, Tensor):
        values = tree.detach().cpu().contiguous()
        crc = zlib.crc32(f"{values.dtype} {list(values.shape)}".encode(), crc)
        return zlib.crc32(values.view(-1).view(torch.uint8).numpy().data, crc)
    return zlib.crc32(repr(tree).encode(), crc)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
