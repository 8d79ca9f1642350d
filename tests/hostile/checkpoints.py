"""Hostile checkpoints and files of weights."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torchvision.models import get_model

from pmsi.models.backbones import make_backbone
from pmsi.models.registry import make_network, read_network
from pmsi.runtime.checkpoints import load_checkpoint, load_newest, save_checkpoint
from tests.helpers.small_run import RECIPE, make_dataset, make_trainer
from tests.hostile.case import CANARY, Case

_NEST = 20_000


class Foreign:
    """Object whose pickle makes a folder beside the room when it is loaded."""

    def __init__(self, room: Path) -> None:
        self.place = room.parent / CANARY

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


def make_state() -> dict[str, Any]:
    return {"identity": {"seed": 0}, "history": [], "weights": torch.arange(1000.0)}


def load_changed(change: Callable[[bytes], bytes], room: Path) -> None:
    """Load a checkpoint whose bytes were changed."""
    path = room / "last.ckpt"
    save_checkpoint(path, make_state())
    path.write_bytes(change(path.read_bytes()))
    load_checkpoint(path)


def flip_bits(room: Path) -> None:
    """One bit of each of 60 places: nothing but what was saved is ever given back."""
    path = room / "last.ckpt"
    save_checkpoint(path, make_state())
    good = path.read_bytes()
    for place in range(0, len(good), len(good) // 60):
        path.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        try:
            found = load_checkpoint(path)
        except ValueError:
            continue
        assert torch.equal(found["weights"], make_state()["weights"]), place
    place = good.index(torch.tensor(500.0).numpy().tobytes())
    path.write_bytes(good[:place] + b"\1" + good[place + 1 :])
    load_checkpoint(path)


def load_saved(make: Callable[[Path], Any], room: Path, *, legacy: bool = False) -> None:
    """Load what torch saved of such a value."""
    state = {**make_state(), "x": make(room), "checksum": 0}
    torch.save(state, room / "last.ckpt", _use_new_zipfile_serialization=not legacy)
    load_checkpoint(room / "last.ckpt")


def repack(change: Callable[[str, bytes], bytes], packing: int, room: Path) -> None:
    """Load a checkpoint whose parts were changed and packed anew."""
    save_checkpoint(room / "kept.ckpt", make_state())
    with zipfile.ZipFile(room / "kept.ckpt") as old, zipfile.ZipFile(room / "last.ckpt", "w", packing) as new:
        for part in old.infolist():
            new.writestr(part.filename, change(part.filename, old.read(part)))
    load_checkpoint(room / "last.ckpt")


def nest_lists(name: str, content: bytes) -> bytes:
    """The pickle of a dictionary that holds lists in lists."""
    if not name.endswith("data.pkl"):
        return content
    lists = b"]" * _NEST + b"a" * (_NEST - 1)
    return b"\x80\x02}(X\x08\0\0\0identity}X\1\0\0\0x" + lists + b"u."


def swell(name: str, content: bytes) -> bytes:
    return bytes(10**8) if name.endswith("data/0") else content


def load_tar(room: Path) -> None:
    """The format of torch before 0.1.10 is a tar file, whose parts are pickles."""
    with tarfile.open(room / "last.ckpt", "w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(Foreign(room))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    load_checkpoint(room / "last.ckpt")


def write_pickle(room: Path) -> None:
    (room / "last.ckpt").write_bytes(pickle.dumps({"identity": {}, "x": Foreign(room)}))
    load_checkpoint(room / "last.ckpt")


def fall_back(room: Path) -> None:
    """The checkpoint before the last one is taken, with a warning."""
    path = room / "last.ckpt"
    for number in (1, 2):
        save_checkpoint(path, {**make_state(), "number": number})
    path.write_bytes(path.read_bytes()[:500])
    found = load_newest(path)
    assert found is not None
    assert found["number"] == 1


def read_poisoned(room: Path) -> None:
    """A checksum that fits does not make NaN a network."""
    network = make_network(RECIPE, 3)
    with torch.no_grad():
        next(network.parameters())[0, 0, 0, 0] = torch.nan
    save_checkpoint(room / "last.ckpt", {**make_state(), "model": network.state_dict()})
    read_network(load_checkpoint(room / "last.ckpt"), RECIPE, 3, room / "last.ckpt")


def read_weights(value: Callable[[torch.Tensor], torch.Tensor], room: Path) -> None:
    """Make a backbone of weights of which one was changed."""
    weights = get_model("resnet18").state_dict()
    weights["conv1.weight"] = value(weights["conv1.weight"])
    torch.save(weights, room / "weights.pth")
    make_backbone("resnet18", str(room / "weights.pth"))


def continue_run(changes: dict[str, Any], room: Path) -> None:
    """Continue a run from a checkpoint of which some values were replaced, with a checksum that fits."""
    trainer = make_trainer(room, RECIPE, dataset=make_dataset())
    trainer._save()
    state = load_checkpoint(room / "last.ckpt")
    for name, value in changes.items():
        state[name] = value
    del state["written_by"]
    save_checkpoint(room / "last.ckpt", state)
    make_trainer(room, RECIPE, dataset=make_dataset())


_NONE_HOLDS = "it holds what none holds"
_UNSAFE = "is damaged, or no file of tensors that torch can load safely"
_PROGRESS = "does not say how far it was trained"
_EPOCH = {"done": 0, "losses": [0.0] * 4, "seconds": 0.0, "waited": 0.0}
CHECKPOINTS = (
    Case("a checkpoint that is empty", partial(load_changed, lambda _: b""), _UNSAFE),
    Case("a checkpoint that is cut", partial(load_changed, lambda content: content[:-700]), _UNSAFE),
    Case("a checkpoint with a flipped bit, in any of 60 places", flip_bits, "checksum does not match"),
    Case("a pickle that makes a folder when it is loaded", write_pickle, _UNSAFE, "no code is run"),
    Case("a checkpoint with foreign code in it", partial(load_saved, Foreign), _UNSAFE, "no code is run"),
    Case(
        "foreign code in torch's format before 1.6",
        partial(load_saved, Foreign, legacy=True),
        _UNSAFE,
        "no code is run",
    ),
    Case("foreign code in torch's format before 0.1.10", load_tar, _UNSAFE, "no code is run"),
    Case(
        "a checkpoint that unpacks to a hundred times its size", partial(repack, swell, zipfile.ZIP_DEFLATED), _UNSAFE
    ),
    Case(
        "a tensor that says it has 2^60 elements, all the same",
        partial(load_saved, lambda _: torch.ones(1).expand(2**30, 2**30)),
        _NONE_HOLDS,
    ),
    Case("20,000 lists in each other", partial(repack, nest_lists, zipfile.ZIP_STORED), _NONE_HOLDS),
    Case("a sparse tensor", partial(load_saved, lambda _: torch.eye(3).to_sparse()), _NONE_HOLDS),
    Case("a tensor without numbers", partial(load_saved, lambda _: torch.ones(3, device="meta")), _NONE_HOLDS),
    Case(
        "a last checkpoint that is cut, with the one before beside it", fall_back, then="the one before, with a warning"
    ),
    Case("NaN among the weights, under a checksum that fits", read_poisoned, "holds numbers that are not finite"),
    Case(
        "NaN in a file of weights", partial(read_weights, lambda one: one * torch.nan), "holds numbers that are not fin"
    ),
    Case(
        "a sparse tensor in a file of weights",
        partial(read_weights, torch.Tensor.to_sparse),
        "must hold a flat state dict of tensors",
    ),
    Case("a checkpoint without a history", partial(continue_run, {"history": None}), _PROGRESS),
    Case("a history of words", partial(continue_run, {"history": ["x"]}), _PROGRESS),
    Case("losses of another network", partial(continue_run, {"epoch": {**_EPOCH, "losses": [0.0]}}), _PROGRESS),
    Case("-1 mini-batches done", partial(continue_run, {"epoch": {**_EPOCH, "done": -1}}), _PROGRESS),
    Case("an optimizer's state of another shape", partial(continue_run, {"optimizer": {"state": {}}}), "does not fit"),
)
