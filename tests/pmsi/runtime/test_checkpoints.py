"""Checkpoints: read back as saved, damaged ones refused, the one before the last taken in their place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pmsi.runtime.checkpoints import (
    check_identity,
    load_checkpoint,
    load_newest,
    load_parts,
    previous_path,
    save_checkpoint,
)
from pmsi.runtime.environment import name_version
from tests.helpers.small_run import name_differences


def test_checkpoints_go_round(tmp_path: Path) -> None:
    state = {"identity": {"a": 1}, "history": [{"mix": 2.5}], "model": {"w": torch.rand(3)}}
    save_checkpoint(tmp_path / "last.ckpt", state)
    found = load_checkpoint(tmp_path / "last.ckpt")
    assert found.pop("written_by") == name_version()
    assert name_differences(found, state) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file .*last.ckpt"),
        ("words", "last.ckpt is damaged, or no file of tensors"),
        ({"model": {}}, "last.ckpt is not a checkpoint of pmsi"),
        ([1, 2], "last.ckpt is not a checkpoint of pmsi"),
    ],
)
def test_other_files_are_no_checkpoints(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "last.ckpt"
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(FileNotFoundError if content is None else ValueError, match=message):
        load_checkpoint(path)


def test_cut_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"identity": {}, "weights": torch.rand(1000)})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged, or no file of tensors"):
        load_checkpoint(path)


class Evil:
    """An object that would write a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('code was run')",))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"identity": {}, "x": Evil()}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="no file of tensors that torch can load safely"):
        load_checkpoint(tmp_path / "last.ckpt")


def test_a_changed_value_is_seen_by_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"identity": {}, "weights": torch.arange(4.0)})
    state = torch.load(path, weights_only=True)
    state["weights"][2] = 9
    torch.save(state, path)
    with pytest.raises(ValueError, match="is damaged: its checksum does not match what it holds"):
        load_checkpoint(path)


def test_the_last_two_are_kept_and_the_older_is_taken_if_the_newer_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    assert load_newest(path) is None
    for number in (1, 2, 3):
        save_checkpoint(path, {"identity": {}, "number": number})
    newest = load_newest(path)
    assert newest is not None
    assert newest["number"] == 3
    path.write_bytes(b"x")
    with pytest.warns(UserWarning, match="going on from previous.ckpt, which was saved before"):
        older = load_newest(path)
    assert older is not None
    assert older["number"] == 2
    previous_path(path).write_bytes(b"x")
    with pytest.raises(ValueError, match="remove them to start anew"):
        load_newest(path)


def test_another_run_is_refused_by_what_differs(tmp_path: Path) -> None:
    check_identity({"seed": 1, "data": "x"}, {"data": "x", "seed": 1}, tmp_path)
    with pytest.raises(ValueError, match=r"belongs to another run: lr is None there, 0\.1 was asked for; seed is 1 th"):
        check_identity({"seed": 1}, {"seed": 2, "lr": 0.1}, tmp_path)


def test_places_and_later_names_are_not_compared(tmp_path: Path) -> None:
    check_identity({"root": "/a"}, {"root": "/b"}, tmp_path)
    check_identity({"seed": 1}, {"seed": 1, "labels_crc32": 5, "class_names": ["a"]}, tmp_path)
    check_identity({"files_crc32": [1], "data_crc32": 2}, {"files_crc32": [1], "data_crc32": 3}, tmp_path)
    for found, wanted, text in (
        ({"labels_crc32": 4}, {"labels_crc32": 5}, "labels_crc32 is 4 there, 5 was asked for"),
        ({"class_names": ["a", "b"]}, {"class_names": ["a", "c"]}, r"class_names\[1\] is 'b' there, 'c' was asked"),
        ({"data_crc32": 2}, {"data_crc32": 3, "files_crc32": [1]}, "data_crc32 is 2 there, 3 was asked for"),
        ({"files_crc32": [1]}, {}, r"files_crc32 is \[1\] there"),
    ):
        with pytest.raises(ValueError, match=text):
            check_identity(found, wanted, tmp_path)


def test_the_version_that_stored_another_run_is_named(tmp_path: Path) -> None:
    stored = {"recipe.colour": 1, "recipe.dropout": 0.5}
    message = (
        rf"belongs to another run, of pmsi 9\.9 \(fedcba\) \(this is {re.escape(name_version())}\): recipe\.colour is "
        r"1 there, which this version does not know; recipe\.dropout is 0\.5 there, 0\.1 was asked for\. Choose another"
    )
    with pytest.raises(ValueError, match=message):
        check_identity(stored, {"recipe.dropout": 0.1}, tmp_path, "pmsi 9.9 (fedcba)")
    with pytest.raises(ValueError, match="belongs to another run: recipe"):
        check_identity(stored, {"recipe.dropout": 0.1}, tmp_path, name_version())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"written_by": "pmsi 9.9 (fedcba)"},
            r"by pmsi 9\.9 \(fedcba\), and its model does not fit .*: it has none\. Use",
        ),
        (
            {"model": {"mass": torch.ones(1)}},
            r"an earlier version of pmsi, and its model .*: Error.* \"weight\", \"bias\"",
        ),
        ({"model": None}, "its model does not fit"),
        ({"model": torch.nn.Linear(3, 2).state_dict()}, r"its model does not fit .* shape torch\.Size\(\[2, 3\]\)"),
    ],
)
def test_parts_of_another_version_are_refused_in_one_line(tmp_path: Path, state: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        load_parts(state, {"model": torch.nn.Linear(2, 2)}, tmp_path / "last.ckpt")
    assert "\n" not in str(refused.value)
