"""Decoded images on disk: used when they fit, replaced and said when they do not, and never half there."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pmsi.data import cache, decoding
from pmsi.data.dataset import Dataset, load_dataset
from pmsi.experiments.folder import make_identity
from pmsi.experiments.source import Source
from tests.helpers.full_disk import full_disk
from tests.helpers.small_run import RECIPE, make_fabric, read_folder

BYTES = 3 * 8 * 8  # of one image
Change = Callable[[Path], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """ImageFolder of two classes with three training and two test images of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (10, 20, 14, 3), np.uint8)
    places = [(part, name, n) for part in ("train", "test") for name in "ab" for n in range(3 - (part == "test"))]
    for image, (part, name, n) in zip(noise, places, strict=True):
        path = tmp_path / "photos" / part / name / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "photos"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def read(root: Path, kept: Path | None, *, resize: int = 8, skip: bool = False) -> tuple[Dataset, list[str]]:
    """The data set, and what was said."""
    said: list[str] = []
    return load_dataset("folder", root, resize=resize, skip_unreadable=skip, cache=kept, say=said.append), said


def read_without_decoding(root: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, *, skip: bool = False) -> Dataset:
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "read_image", lambda path: pytest.fail(f"{path} was read"))
        dataset, said = read(root, kept, skip=skip)
    assert said == []
    return dataset


def check_equal(one: Dataset, other: Dataset) -> None:
    for a, b in ((one.train, other.train), (one.test, other.test)):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert (a.images.dtype, a.images.is_contiguous()) == (torch.uint8, True)
    assert (one.protocol, one.skipped, one.classes) == (other.protocol, other.skipped, other.classes)


def find_training(kept: Path) -> Path:
    (path,) = kept.glob("folder-8px-training-*.pmsi")
    return path


def test_a_second_load_reads_no_image(root: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, said = read(root, None)
    assert said == []
    first, said = read(root, kept)
    assert [line.partition(" are kept in ")[0] for line in said] == [
        "cache: 6 decoded images",
        "cache: 4 decoded images",
    ]
    assert said[0].endswith(f"{find_training(kept)} (0.0 MB)")
    assert {path.name.rpartition("-")[0] for path in kept.iterdir()} == {"folder-8px-training", "folder-8px-test"}
    second = read_without_decoding(root, kept, monkeypatch)
    check_equal(plain, first)
    check_equal(plain, second)


def test_the_cache_is_no_part_of_a_run(root: Path, kept: Path) -> None:
    sources = [
        Source("folder", root, cache=None),
        Source("folder", root, cache=kept),
        Source("folder", root, cache=kept),
    ]
    one, *others = (make_identity(source, source.load(RECIPE), RECIPE, make_fabric()) for source in sources)
    assert others == [one, one]
    assert len(list(kept.iterdir())) == 2


def test_typefaces_are_rendered_and_keep_nothing(kept: Path) -> None:
    load_dataset("typefaces", None, resize=8, cache=kept, say=pytest.fail)
    assert not kept.exists()


def grow(path: Path) -> None:
    time = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(time, time))


def touch(path: Path) -> None:
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


@pytest.mark.parametrize(
    "change",
    [
        grow,
        touch,
        Path.unlink,
        lambda path: shutil.copy2(path, path.with_name("9.png")),
        lambda path: path.rename(path.with_name("00.png")),
        lambda path: path.rename(path.parents[1] / "b" / "9.png"),
    ],
    ids=["size", "time", "removed", "added", "renamed", "moved"],
)
def test_other_files_are_read_again(root: Path, kept: Path, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    read(root, kept)
    before = read_folder(kept)
    change(root / "train" / "a" / "1.png")
    dataset, said = read(root, kept)
    wanted = f"cache: {find_training(kept)} cannot be used (it was made from other files); the images are read again"
    assert said[0] == wanted
    assert len(said) == 2  # test images were not touched
    after = read_folder(kept)
    assert [name for name in before | after if before.get(name) != after.get(name)] == [find_training(kept).name]
    check_equal(dataset, read(root, None)[0])
    check_equal(dataset, read_without_decoding(root, kept, monkeypatch))


def test_other_labels_are_read_again(root: Path) -> None:
    entries = [(path, label) for label, path in enumerate(sorted(root.rglob("*.png")))]
    keys = [cache.make_key(root, e, resize=8) for e in (entries, [*entries[:-1], (entries[-1][0], 0)], entries[::-1])]
    assert len({key["files"] for key in keys}) == 3
    assert cache.make_key(root, entries, resize=8) == keys[0]


def test_sizes_live_side_by_side(root: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(root, kept)
    small, (large, said) = read(root, None)[0], read(root, kept, resize=9)
    assert [line.startswith("cache: ") and "kept" in line for line in said] == [True, True]
    assert large.train.images.shape == (6, 3, 9, 9)
    check_equal(small, read_without_decoding(root, kept, monkeypatch))
    (other,) = kept.glob("folder-9px-training-*.pmsi")
    shutil.copy(other, find_training(kept))
    dataset, said = read(root, kept)
    assert "(it was made from other resize); the images are read again" in said[0]
    check_equal(small, dataset)


def test_folders_live_side_by_side(root: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(root, kept)
    shutil.copytree(root, root.with_name("others"))
    assert len(read(root.with_name("others"), kept)[1]) == 2
    assert len(list(kept.iterdir())) == 4
    monkeypatch.chdir(root.parent)
    read_without_decoding(Path(root.name), kept, monkeypatch)


@pytest.mark.parametrize("name", ["torch.__version__", "torchvision.__version__", "PIL.__version__"])
def test_other_decoders_decode_again(root: Path, kept: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read(root, kept)
    monkeypatch.setattr(name, "99.0")
    said = read(root, kept)[1]
    assert f"it was made from other {name.partition('.')[0].replace('PIL', 'pillow')}" in said[0]


def test_other_rules_of_decoding_decode_again(root: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(root, kept)
    monkeypatch.setattr(cache, "RULES", 99)
    assert "it was made from other decoding" in read(root, kept)[1][0]


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


FOREIGN = "it is damaged, or no cache of this version"
TEXT = "it is damaged: its description does not match its checksum"
PIXELS = "it is damaged: its pixels do not match their checksum"
DAMAGE: list[tuple[str, Change, str]] = [
    ("empty", partial(cut, size=0), "cannot mmap an empty file"),
    ("short", partial(cut, size=7), FOREIGN),
    ("half of the pixels", partial(cut, size=3 * BYTES), FOREIGN),
    ("last byte lost", partial(cut, size=-1), FOREIGN),
    ("words", lambda path: path.write_text("nothing of ours\n" * 99), FOREIGN),
    ("end alone", lambda path: path.write_bytes(b"\xff" * 8 + cache._MAGIC), TEXT),
    ("description", partial(flip, place=6 * BYTES + 30), TEXT),
    ("first pixel", partial(flip, place=0), PIXELS),
    ("last pixel", partial(flip, place=6 * BYTES - 1), PIXELS),
    ("a pipe", make_pipe, "{path} is no file but a folder, a pipe or a device"),
    ("an image lost", lambda path: path.write_bytes(path.read_bytes()[BYTES:]), "it is damaged: it has 960 bytes"),
]


@pytest.mark.parametrize(("damage", "reason"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE])
def test_damage_is_said_and_mended(
    root: Path, kept: Path, damage: Change, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = read(root, None)
    read(root, kept)
    before = read_folder(kept)
    damage(find_training(kept))
    second, said = read(root, kept)
    path = find_training(kept)
    assert said[0].startswith(f"cache: {path} cannot be used ({reason.format(path=path)}")
    assert said[0].endswith("); the images are read again")
    assert len(said) == 2
    assert read_folder(kept) == before
    check_equal(first, second)
    check_equal(first, read_without_decoding(root, kept, monkeypatch))


def test_what_was_left_out_is_kept_too(root: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in (0, 2):
        (root / "train" / "a" / f"{n}.png").write_bytes(b"<html>404</html>")
    (root / "train" / "b" / "link.png").symlink_to("nowhere")
    plain, _ = read(root, None, skip=True)
    assert (len(plain.train.labels), len(plain.skipped)) == (4, 3)
    check_equal(plain, read(root, kept, skip=True)[0])
    check_equal(plain, read_without_decoding(root, kept, monkeypatch, skip=True))
    before = read_folder(kept)
    with pytest.raises(ValueError, match=r"cannot read .*a/0\.png"):
        read(root, kept)
    assert read_folder(kept) == before


def test_nothing_left_is_refused_with_and_without(root: Path, kept: Path) -> None:
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(ValueError, match="there are no test images left after 4 unreadable ones were skipped"):
            read(root, kept, skip=True)


@pytest.mark.parametrize("free", [0, 2 * BYTES + 7, 6 * BYTES + 7])
def test_full_disk_leaves_the_old_file(root: Path, kept: Path, free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = read(root, kept)
    before, picture = read_folder(kept), root / "train" / "a" / "1.png"
    old = picture.stat().st_mtime_ns
    touch(picture)
    with (
        full_disk(free),
        pytest.raises(OSError, match=r"could not write .*training-\w+\.pmsi: .*File too large") as stop,
    ):
        read(root, kept)
    assert str(stop.value).endswith("untouched. Name another folder with --cache, or none with --cache None")
    assert read_folder(kept) == before
    os.utime(picture, ns=(old, old))
    check_equal(first, read_without_decoding(root, kept, monkeypatch))


def test_full_disk_leaves_nothing_half_done(root: Path, kept: Path) -> None:
    threads, message = torch.get_num_threads(), rf"could not write {kept}/folder-64px-training-\w+\.pmsi: \[Errno"
    torch.set_num_threads(3)
    try:
        with full_disk(2 * 3 * 64 * 64), pytest.raises(OSError, match=message) as stop:
            read(root, kept, resize=64)
        assert torch.get_num_threads() == 3, stop  # though the traceback holds on to those who were at it
    finally:
        torch.set_num_threads(threads)
    assert list(kept.iterdir()) == []


def test_a_folder_that_cannot_be(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cache: could not write .*Not a directory.*another folder with --cache"):
        read(root, tmp_path / "file" / "cache")


def test_ctrl_c_leaves_nothing(root: Path, kept: Path) -> None:
    def stop(_: str, done: int, __: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_dataset("folder", root, resize=8, cache=kept, say=pytest.fail, progress=stop)
    assert list(kept.iterdir()) == []


def test_two_at_a_time(root: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One starts, another comes by and finishes, then the first goes on."""
    other: list[Dataset] = []

    def come_by(*_: object) -> None:
        if not other:
            other.append(read(root, kept)[0])

    first = load_dataset("folder", root, resize=8, cache=kept, say=lambda _: None, progress=come_by)
    check_equal(first, other[0])
    assert len(list(kept.iterdir())) == 2
    check_equal(first, read_without_decoding(root, kept, monkeypatch))


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_images_lie_over_the_file(root: Path, kept: Path, platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    read(root, kept)
    before, path = read_folder(kept), find_training(kept)
    for file in kept.iterdir():
        file.chmod(0o444)
    one, other = (read(root, kept)[0].train.images for _ in range(2))
    place = _find_map(one)
    assert place == str(path)
    assert _find_map(other) == place
    expected = other.clone()
    one.fill_(7)
    assert torch.equal(other, expected)
    path.unlink()  # a map outlives the name
    assert torch.equal(other, expected)
    read(root, kept)
    assert read_folder(kept) == before


def _find_map(images: Tensor) -> str:
    """The file that lies under a tensor."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(end, 16) for end in line.split()[0].split("-"))
        if low <= images.data_ptr() < high:
            return line.split(maxsplit=5)[5]
    raise AssertionError("the tensor is nowhere")


def test_a_file_may_be_larger_than_memory(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(4 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    mapped = cache._map(path)
    assert (len(mapped), mapped[-1]) == (path.stat().st_size, 0)
