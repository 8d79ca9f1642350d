"""Checkpoints with a checksum: saved atomically, the last two kept, damaged ones refused."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pmsi.runtime.environment import name_version
from pmsi.runtime.files import describe_error, expand_home, replace_file

_OLDER = "an earlier version of pmsi"  # which did not keep its name


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace ``path`` by ``state`` (tensors and plain values), the version that writes it, and a checksum.

    What was there is kept at `previous_path`.
    """
    signed = {"written_by": name_version(), **state}
    whole = {**signed, "checksum": _compute_checksum(signed)}
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
        _check_stored(path)
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
    try:
        for tensor in _list_tensors(state):
            if tensor.nbytes > tensor.untyped_storage().nbytes():
                raise TypeError("a tensor that repeats its memory, and may have any size")
        same = state.pop("checksum", None) == _compute_checksum(state)
    except (RuntimeError, TypeError) as error:  # sparse, meta or complex tensors, or lists in thousands of lists
        raise ValueError(f"{path} is damaged, or not a checkpoint of pmsi: it holds what none holds") from error
    if not same:
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


def load_parts(state: Mapping[str, Any], parts: Mapping[str, Any], path: Path) -> None:
    """Load parts of a run (network, optimizer, ...) from the state that `load_checkpoint` gave.

    Raises:
        ValueError: another version of pmsi wrote the checkpoint at ``path``, and a part does not fit; or one holds
            numbers that are not finite, which training never saves.
    """
    for name, part in parts.items():
        check_finite(state.get(name), f"{path}: {name}")
        try:
            part.load_state_dict(state[name])
        except (LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            reason = describe_error(error) if name in state else "it has none"
            raise ValueError(
                f"{path} was written by {state.get('written_by', _OLDER)}, and its {name} does not fit "
                f"{name_version()}: {reason}. Use that version, or choose another --run folder"
            ) from error


def check_finite(tree: Any, what: str) -> None:
    """ValueError if a tensor of nested dicts and lists holds NaN or infinity, of which every prediction would be."""
    if not all(bool(tensor.isfinite().all()) for tensor in _list_tensors(tree)):
        raise ValueError(f"{what} holds numbers that are not finite (NaN or infinity); take another file")


def check_identity(
    found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path, written_by: str | None = None
) -> None:
    """Check that a stored run is the one that was asked for.

    Places are not compared: a data set that was moved is told by what it holds.

    Args:
        found, wanted: stored and asked for.
        path: where the former is.
        written_by: `name_version` of the code that stored it; None if it is not known.

    Raises:
        ValueError: a value differs; the message names all that do, and the version if that is another one.
    """
    ignored = {"root", *(_LATER - found.keys())}
    if "files_crc32" in found and "files_crc32" in wanted:
        ignored.add("data_crc32")  # of files it has their times of change, which a copy does not keep
    differs = [
        _describe_difference(name, found, wanted)
        for name in sorted((found.keys() | wanted.keys()) - ignored)
        if found.get(name) != wanted.get(name)
    ]
    if differs:
        wrote = "" if written_by in (None, name_version()) else f", of {written_by} (this is {name_version()})"
        raise ValueError(f"{path} belongs to another run{wrote}: {'; '.join(differs)}. Choose another --run folder")


def _describe_difference(name: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    there, asked = found.get(name), wanted.get(name)
    if isinstance(there, list) and isinstance(asked, list) and len(there) == len(asked):
        row = next(row for row, pair in enumerate(zip(there, asked, strict=True)) if pair[0] != pair[1])
        return f"{name}[{row}] is {_brief(repr(there[row]))} there, {_brief(repr(asked[row]))} was asked for"
    wish = f"{_brief(repr(asked))} was asked for" if name in wanted else "which this version does not know"
    return f"{name} is {_brief(repr(there))} there, {wish}"


def _check_stored(path: Path) -> None:
    """ValueError for a zip file that unpacks to more than its own size: torch packs nothing, a bomb does."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                raise ValueError("it would unpack to more than its size")


def _list_tensors(tree: Any) -> Iterator[Tensor]:
    """List the tensors of nested dicts and lists."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _list_tensors(value)


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


def _brief(text: str, longest: int = 80) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
