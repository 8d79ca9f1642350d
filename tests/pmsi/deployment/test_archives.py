"""Archives of `torch.export` that hold pickled objects are refused before torch unpickles them."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pmsi.deployment.archives import check_archive


class Evil:
    """Object whose pickle makes a folder when it is loaded."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.place,)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archives") / "net.pt2"
    torch.export.save(torch.export.export(torch.nn.BatchNorm1d(2).eval(), (torch.zeros(2, 2),)), path)
    return path


def change(plain: Path, path: Path, changes: dict[str, Callable[[bytes], bytes]]) -> None:
    """Copy an archive with members changed, and with those added that are new."""
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w") as new:
        members = {name.partition("/")[2]: old.read(name) for name in old.namelist()}
        members |= {name: edit(members.get(name, b"")) for name, edit in changes.items()}
        for name, data in members.items():
            new.writestr(f"net/{name}", data)


def edit_config(**values: Any) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        config = json.loads(data)
        config["config"] = {name: {**one, **values} for name, one in (config["config"] or {"b": {}}).items()}
        return json.dumps(config).encode()

    return edit


def save_evil(place: Path) -> bytes:
    file = io.BytesIO()
    torch.save(Evil(place), file)
    return file.getvalue()


def test_plain_archives_pass_and_load(plain: Path) -> None:
    check_archive(plain)
    assert torch.export.load(plain).module()(torch.ones(2, 2)).shape == (2, 2)


def test_inputs_that_run_code_are_refused(plain: Path, tmp_path: Path) -> None:
    """`torch.export.load` itself falls back to unpickling anything."""
    evil = save_evil(tmp_path / "made")
    change(plain, tmp_path / "evil.pt2", {"data/sample_inputs/model.pt": lambda _: evil})
    with pytest.raises(pickle.UnpicklingError):
        check_archive(tmp_path / "evil.pt2")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data/weights/model_weights_config.json": edit_config(use_pickle=True)}, "asks for objects to be unpickled"),
        (
            {"data/constants/model_constants_config.json": edit_config(path_name="opaque_obj_0", use_pickle=False)},
            "asks for objects to be unpickled",
        ),
        ({"data/constants/opaque_obj_0": lambda _: b"x"}, "opaque_obj_0 is no part of a network of plain tensors"),
        ({"data/weights/model.pt": lambda _: b"x"}, r"data/weights/model\.pt is no part"),
        ({"data/aotinductor/model/a.so": lambda _: b"x"}, r"a\.so is no part"),
    ],
)
def test_archives_with_other_parts_are_refused(
    plain: Path, tmp_path: Path, changes: dict[str, Callable[[bytes], bytes]], message: str
) -> None:
    change(plain, tmp_path / "evil.pt2", changes)
    with pytest.raises(ValueError, match=message):
        check_archive(tmp_path / "evil.pt2")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_refused(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "twice.pt2"
    path.write_bytes(plain.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(archive.namelist()[0], b"x")
    with pytest.raises(ValueError, match="stands twice"):
        check_archive(path)
