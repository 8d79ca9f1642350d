"""Files that are either whole or not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from pmsi.runtime.checkpoints import load_checkpoint, save_checkpoint
from pmsi.runtime.files import read_json, replace_file, write_json, write_lines, write_text
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
