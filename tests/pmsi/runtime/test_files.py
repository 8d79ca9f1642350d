"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pmsi.runtime.checkpoints import load_checkpoint, save_checkpoint
from pmsi.runtime.files import (
    check_fields,
    describe_error,
    escape,
    expand_home,
    read_bytes,
    read_json,
    replace_file,
    write_json,
    write_lines,
    write_text,
)
from tests.helpers.full_disk import full_disk
from tests.helpers.small_run import RECIPE, Watch, make_trainer, name_differences, read_folder


def test_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a/b/c.txt", "é\n")
    assert (tmp_path / "a/b/c.txt").read_bytes() == "é\n".encode()
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["c.txt"]


def test_json(tmp_path: Path) -> None:
    values = {"a": [1, 2.5, None], "b": "x"}
    write_json(tmp_path / "one.json", values)
    write_lines(tmp_path / "two.jsonl", [values, {}])
    assert json.loads((tmp_path / "one.json").read_text()) == values
    assert read_json(tmp_path / "one.json") == values
    assert read_json(tmp_path / "none.json") is None
    assert [json.loads(line) for line in (tmp_path / "two.jsonl").read_text().splitlines()] == [values, {}]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "one.json", {"a": float("nan")})
    assert json.loads((tmp_path / "one.json").read_text()) == values


def write_checkpoint(path: Path) -> None:
    save_checkpoint(path, {"identity": {}, "weights": torch.rand(100_000)})


@pytest.mark.parametrize("write", [partial(write_text, text="x" * 100_000), write_checkpoint])
def test_full_disk_leaves_the_old_file(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"old")
    with full_disk(10_000), pytest.raises(OSError, match=rf"could not write {path}: .*what stood there .* untouched"):
        write(path)
    assert read_folder(tmp_path).keys() == {"kept"}
    assert path.read_bytes() == b"old"


def test_a_kill_between_write_and_rename_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"old")

    def die(beside: Path) -> None:
        beside.write_bytes(b"half of the n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(path, die)
    assert read_folder(tmp_path).keys() == {"kept"}
    assert path.read_bytes() == b"old"


def test_several_processes_may_replace_one_file(tmp_path: Path) -> None:
    path = tmp_path / "kept"

    def write(beside: Path) -> None:
        beside.write_bytes(b"of the first")
        replace_file(path, lambda other: other.write_bytes(b"of the second"))
        assert path.read_bytes() == b"of the second"

    replace_file(path, write)
    assert path.read_bytes() == b"of the first"
    assert read_folder(tmp_path).keys() == {"kept"}


@pytest.mark.usefixtures("small_backbone")
def test_run_goes_on_after_a_full_disk_as_if_nothing_was(tmp_path: Path) -> None:
    make_trainer(tmp_path / "whole").run(Watch())
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path / "parts").run(Watch((2, 1)))
    before = read_folder(tmp_path / "parts")
    with full_disk(10_000), pytest.raises(OSError, match=r"could not write .*last\.ckpt"):
        make_trainer(tmp_path / "parts").run(Watch())
    assert read_folder(tmp_path / "parts") == before
    make_trainer(tmp_path / "parts").run(Watch())
    whole, parts = (load_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "parts"))
    assert name_differences(whole, parts) == []
    assert RECIPE.epochs == len(parts["history"])


@pytest.mark.parametrize("refuses", ["open", "fsync of a folder", "fsync of all"])
def test_file_systems_that_cannot_sync_are_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    """Windows opens no folder; network and union file systems sync none."""
    real_open, real_sync = os.open, os.fsync

    def open_file(path: Any, flags: int, *more: Any, **others: Any) -> int:
        if refuses == "open" and Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_open(path, flags, *more, **others)

    def sync(handle: int) -> None:
        if refuses == "fsync of all" or (refuses == "fsync of a folder" and stat.S_ISDIR(os.fstat(handle).st_mode)):
            raise OSError(errno.EINVAL, "Invalid argument")
        assert stat.S_ISDIR(os.fstat(handle).st_mode) or fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        real_sync(handle)

    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(os, "fsync", sync)
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "new")]


def test_a_failing_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"could not write .*Input/output error; what stood there before is untouched"):
        write_text(tmp_path / "a.txt", "new")
    assert list(tmp_path.iterdir()) == []


def test_home_is_expanded_and_no_folder_has_its_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for write in (write_text, write_checkpoint_there):
        write(Path("~/a/b"), "x")
    assert expand_home(Path("~/a")) == tmp_path / "home" / "a"
    assert expand_home(Path("a/~")) == Path("a/~")
    assert load_checkpoint(Path("~/a/b.ckpt"))["identity"] == {}
    recipe = replace(RECIPE, epochs=1, augmentation="none")
    make_trainer(Path("~/run"), recipe).run(Watch())
    assert (tmp_path / "home/run/last.ckpt").is_file()
    assert list((tmp_path / "here").iterdir()) == []
    with pytest.raises(ValueError, match=r"~nobody-of-this-name/x: .*; give the path in full, or as ./~nobody"):
        expand_home(Path("~nobody-of-this-name/x"))


def write_checkpoint_there(path: Path, _: str) -> None:
    save_checkpoint(path.with_suffix(".ckpt"), {"identity": {}})


def test_texts_of_others_are_shown_on_one_line() -> None:
    assert escape("a\nb\x1b[31m\udce9\u202ec \u4e2d") == "a\\nb\\x1b[31m\\udce9\\u202ec \u4e2d"
    assert describe_error(ValueError("a\n  b")) == "a b"
    assert describe_error(KeyError()) == "KeyError"
    assert len(describe_error(ValueError("x" * 999))) == 300


@pytest.mark.parametrize(
    "text", ['{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', '{"a": 1, "a": 1}', "[" * 99_999, "[]"]
)
def test_json_that_we_never_write_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


def test_pipes_and_folders_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(ValueError, match="is no file but a folder, a pipe or a device"):
            read_bytes(tmp_path / name)


def test_fields_have_their_types() -> None:
    check_fields({"a": 1, "b": None}, {"a": (int,), "b": (str, type(None)), "c": (type(None),)}, Path("x"))
    for values in ({"a": True}, {"a": "1"}, {}, [1]):
        with pytest.raises(ValueError, match="x is damaged: a must be int, got"):
            check_fields(values, {"a": (int,)}, Path("x"))
