"""Initial weights of the backbone: from a file, from torchvision's site (a local server stands in), or random."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torchvision.models import mobilenet_v2

from pmsi.models.backbones import make_mobilenet_v2


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def state() -> dict[str, Tensor]:
    """What torchvision's file holds: features and classifier."""
    found: dict[str, Tensor] = mobilenet_v2().state_dict()
    return found


class Site:
    """Stands in for torchvision's: a server on this machine that shows a folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def offer(self, name: str) -> None:
        """Make this file the one that "imagenet" means."""
        url = f"http://127.0.0.1:{self.server.server_port}/{name}"
        weights = SimpleNamespace(IMAGENET1K_V1=SimpleNamespace(url=url))
        self.monkeypatch.setattr("pmsi.models.backbones.MobileNet_V2_Weights", weights)

    def publish(self, state: dict[str, Tensor]) -> str:
        """Offer a file whose name ends in the hash of its bytes, as torchvision's do."""
        raw = self.folder / "raw"
        torch.save(state, raw)
        name = f"mobilenet_v2-{hashlib.sha256(raw.read_bytes()).hexdigest()[:8]}.pth"
        raw.rename(self.folder / name)
        self.offer(name)
        return name

    def close(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    site = Site(folder, monkeypatch)
    yield site
    site.close()


def check_loaded(weights: str, state: dict[str, Tensor]) -> None:
    torch.manual_seed(1)
    loaded = make_mobilenet_v2(weights).state_dict()
    features = [value for name, value in state.items() if name.startswith("features.")]
    assert len(loaded) == len(features) == 312
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(loaded.values(), features, strict=True))


def test_file(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "weights.pth")
    check_loaded(str(tmp_path / "weights.pth"), state)


def test_file_of_the_features_alone(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({name: value for name, value in state.items() if name.startswith("features.")}, tmp_path / "weights.pth")
    check_loaded(str(tmp_path / "weights.pth"), state)


def test_no_weights_are_random() -> None:
    torch.manual_seed(0)
    first, second = (make_mobilenet_v2().state_dict()["stages.0.0.0.weight"] for _ in range(2))
    assert not torch.equal(first, second)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.pth", tmp_path):
        with pytest.raises(FileNotFoundError, match=rf"weights: no file {path}; give a file, 'imagenet' or 'none'"):
            make_mobilenet_v2(str(path))


def test_file_that_lacks_tensors(tmp_path: Path, state: dict[str, Tensor]) -> None:
    lacking = {name: value for name, value in state.items() if not name.startswith(("features.3.", "features.18."))}
    torch.save(lacking, tmp_path / "some.pth")
    count = len(state) - len(lacking)
    with pytest.raises(ValueError, match=rf"some\.pth lacks {count} of 312 tensors, the first features\.18\.0\.weight"):
        make_mobilenet_v2(str(tmp_path / "some.pth"))


def test_file_of_other_shapes(tmp_path: Path) -> None:
    torch.save(mobilenet_v2(width_mult=0.5).state_dict(), tmp_path / "half.pth")
    message = r"weights: features\.0\.0\.weight must be \[32, 3, 3, 3\], .*half\.pth has \[16, 3, 3, 3\]"
    with pytest.raises(ValueError, match=message):
        make_mobilenet_v2(str(tmp_path / "half.pth"))


def test_file_of_another_width(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "whole.pth")
    message = (
        r"features\.0\.0\.weight must be \[16, 3, 3, 3\], .*whole\.pth has \[32, 3, 3, 3\]; give 'none', or a file of "
        r"mobilenet_v2 with width_mult=0\.35, or set width_mult=1\.0 if it is of that width"
    )
    with pytest.raises(ValueError, match=message):
        make_mobilenet_v2(str(tmp_path / "whole.pth"), width_mult=0.35)


def test_pretrained_weights_are_of_one_width() -> None:
    message = (
        r"'imagenet' has mobilenet_v2 with width_mult=1\.0 alone, 0\.35 was asked for; give 'none', a file of that"
    )
    with pytest.raises(ValueError, match=message):
        make_mobilenet_v2("imagenet", width_mult=0.35)


def test_file_that_is_no_state_dict(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "other.pth"
    path.write_text("a page that says 404")
    with pytest.raises(ValueError, match=r"other\.pth is damaged, or no file of tensors that torch can load safely"):
        make_mobilenet_v2(str(path))
    torch.save({"model": state}, path)
    with pytest.raises(ValueError, match=r"other\.pth must hold a flat state dict of tensors"):
        make_mobilenet_v2(str(path))


@pytest.mark.usefixtures("capsys")  # the bar of torch.hub
def test_download(site: Site, state: dict[str, Tensor], tmp_path: Path) -> None:
    name = site.publish(state)
    check_loaded("imagenet", state)
    (site.folder / name).unlink()
    check_loaded("imagenet", state)  # from the cache
    assert (tmp_path / "cache/hub/checkpoints" / name).is_file()


@pytest.mark.usefixtures("capsys")
def test_download_that_arrives_damaged_is_refused_and_not_kept(site: Site, state: dict[str, Tensor]) -> None:
    name = site.publish(state)
    whole = (site.folder / name).read_bytes()
    (site.folder / name).write_bytes(whole[:5000] + b"?" + whole[5001:])
    with pytest.raises(ConnectionError, match=rf"download http.*/{name} \(invalid hash value .*--weights FILE"):
        make_mobilenet_v2("imagenet")
    (site.folder / name).write_bytes(whole)
    check_loaded("imagenet", state)


def test_download_that_is_not_there(site: Site) -> None:
    site.offer("mobilenet_v2-00000000.pth")
    with pytest.raises(ConnectionError, match=r"could not download http.*404.*--weights FILE, or 'none'"):
        make_mobilenet_v2("imagenet")


def test_download_without_a_network(site: Site) -> None:
    site.offer("mobilenet_v2-00000000.pth")
    site.close()
    with pytest.raises(ConnectionError, match=r"could not download http.*refused.*give a file with --weights FILE"):
        make_mobilenet_v2("imagenet")
