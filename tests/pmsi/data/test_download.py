"""Downloads from a server of this process that supports ranges or not, breaks off, stalls, or sends something else."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pmsi.data.download import download_dataset, download_file, unpack_archive
from pmsi.data.layouts import LAYOUTS
from pmsi.data.layouts.base import Archive
from tests.helpers.dataset_files import write_cub
from tests.helpers.download_server import CONTENT, Server, serve
from tests.helpers.small_run import read_folder

MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "data.tgz"


def part_of(path: Path) -> Path:
    return path.with_name(".data.tgz.part")


def test_a_download_is_whole_and_not_repeated(server: Server, path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    server.content = os.urandom(3_500_000)
    md5 = hashlib.md5(server.content).hexdigest()
    for _ in range(2):
        download_file(server.url, path, md5, lambda *call: calls.append(call))
    assert path.read_bytes() == server.content
    assert [entry.name for entry in path.parent.iterdir()] == ["data.tgz"]
    assert server.asked == [None]
    assert {call[0] for call in calls} == {"downloading data.tgz, MB"}
    assert [call[1:] for call in calls] == sorted(call[1:] for call in calls)
    assert calls[-1][1:] == (3, 3)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_gone_on_with(server: Server, path: Path, ranges: bool) -> None:
    server.stop_after, server.ranges = 100_000, ranges
    text = r"http://127.*data.tgz: the server broke off after 0.1 of 0.3 MB. 0.1 MB are kept, and the same command goes"
    with pytest.raises(OSError, match=text):
        download_file(server.url, path, MD5)
    assert part_of(path).read_bytes() == CONTENT[:100_000]
    assert not path.exists()
    server.stop_after = None
    download_file(server.url, path, MD5)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]
    assert not part_of(path).exists()


def test_a_part_that_is_whole_already_is_taken(server: Server, path: Path) -> None:
    path.parent.mkdir()
    part_of(path).write_bytes(CONTENT)
    download_file(server.url, path, MD5)
    assert (path.read_bytes(), server.asked) == (CONTENT, ["bytes=300000-"])


def test_a_server_that_does_not_say_how_much_comes(server: Server, path: Path) -> None:
    server.lengths = False
    download_file(server.url, path, MD5, lambda *_: None)
    assert path.read_bytes() == CONTENT
    path.unlink()
    server.stop_after = 1000
    with pytest.raises(ValueError, match="what came has the md5"):
        download_file(server.url, path, MD5)


@pytest.mark.parametrize("begun", [b"", b"another file" * 99])
def test_other_bytes_are_deleted(server: Server, path: Path, begun: bytes) -> None:
    server.content = CONTENT[:-1] + b"!"
    path.parent.mkdir()
    if begun:
        part_of(path).write_bytes(begun)
    with pytest.raises(ValueError, match=rf"what came has the md5 \w+, not {MD5}, and was deleted. Run this again"):
        download_file(server.url, path, MD5)
    assert list(path.parent.iterdir()) == []
    server.content = CONTENT
    download_file(server.url, path, MD5)
    assert path.read_bytes() == CONTENT


def test_another_file_in_its_place_is_left_alone(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(
        ValueError, match=r"data.tgz is not what http.* publishes: its md5 is \w+, not .*; move it away"
    ):
        download_file(server.url, path, MD5)
    assert (path.read_bytes(), server.asked) == (b"mine", [])


def test_a_server_that_has_it_not_or_is_not_there(server: Server, path: Path) -> None:
    with pytest.raises(OSError, match=r"HTTP Error 404: Not Found. 0.0 MB are kept, .* by other means to .*data.tgz"):
        download_file(server.url.replace("/a/data.tgz", "/missing"), path, MD5)
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError, match=r"could not download \S+: \[Errno \d+\] Connection refused\. 0\.0 MB"):
        download_file(server.url, path, MD5)


def test_a_server_that_stalls_is_given_up(server: Server, path: Path) -> None:
    server.stop_after, server.stall = 50_000, True
    began = time.monotonic()
    with pytest.raises(OSError, match=r"could not download .*timed out. 0.1 MB are kept"):
        download_file(server.url, path, MD5, timeout=0.3)
    assert time.monotonic() - began < 5
    assert part_of(path).read_bytes() == CONTENT[:50_000]


def test_a_disk_without_room(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(path.parents[1])
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=299_999))
        with pytest.raises(OSError, match=r"0 MB are to come, and .*new has room for 0 MB. 0.0 MB are kept"):
            download_file(server.url, path, MD5)
    part_of(path).write_bytes(CONTENT[:1])
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=299_999))  # as much as is left to come
        download_file(server.url, path, MD5)
    path.unlink()
    part_of(path).symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"could not download .*No space left on device"):
        download_file(server.url, path, MD5)


def write_archive(path: Path, folder: Path | None = None, *members: tarfile.TarInfo) -> None:
    with tarfile.open(path, "w:gz") as tar:
        if folder is not None:
            tar.add(folder, folder.name)
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))


def make_member(name: str, *, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = (0, tarfile.SYMTYPE, link) if link else (1, tarfile.REGTYPE, "")
    return member


def test_what_is_unpacked_appears_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path / "a.tgz", write_cub(tmp_path / "made" / "birds"), make_member("attributes.txt"))
    calls: list[tuple[str, int, int]] = []
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extract", fail_at(3, tarfile.TarFile.extract))
        with pytest.raises(OSError, match=r"could not unpack .*a.tgz to .*No space left.*; make room, and run this"):
            unpack_archive(tmp_path / "a.tgz", tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.tgz", "made"]
    unpack_archive(tmp_path / "a.tgz", tmp_path, lambda *call: calls.append(call))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.tgz", "attributes.txt", "birds", "made"]
    made, got = (read_folder(folder) for folder in (tmp_path / "made" / "birds", tmp_path / "birds"))
    assert made == got
    assert {call[0] for call in calls} == {"unpacking a.tgz, MB"}


def fail_at(count: int, extract: Any) -> Any:
    """The disk is full at the ``count``-th file."""
    done = []

    def fail(*args: Any, **options: Any) -> None:
        done.append(args)
        if len(done) == count:
            raise OSError(errno.ENOSPC, "No space left on device")
        extract(*args, **options)

    return fail


@pytest.mark.parametrize(
    "members",
    [
        [make_member("../evil.txt")],
        [make_member("good/../../evil.txt")],
        [make_member("good", link=".."), make_member("good/evil.txt")],
        [make_member("good", link="/tmp")],
    ],
)
def test_an_archive_that_would_write_elsewhere_is_refused(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    (tmp_path / "in").mkdir()
    write_archive(tmp_path / "in" / "a.tgz", None, make_member("fine.txt"), *members)
    with pytest.raises(ValueError, match=r"a.tgz cannot be unpacked: .*outside|a.tgz cannot be unpacked: .*absolute"):
        unpack_archive(tmp_path / "in" / "a.tgz", tmp_path / "in")
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "a.tgz"]


def test_an_absolute_name_stays_inside(tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    (root := tmp_path / "root").mkdir()
    write_archive(tmp_path / "a.tgz", None, make_member(f"{place}/evil.txt"))
    unpack_archive(tmp_path / "a.tgz", root)
    assert not place.exists()
    assert (root / str(place)[1:] / "evil.txt").is_file()


def test_a_python_that_cannot_unpack_safely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path / "a.tgz", None, make_member("fine.txt"))
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(OSError, match=r"needs Python 3.11.4 or newer; or run: tar -C .* -xf .*a.tgz"):
        unpack_archive(tmp_path / "a.tgz", tmp_path)


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_a_damaged_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    write_archive(tmp_path / "a.tgz", write_cub(tmp_path / "birds"))
    (tmp_path / "b.tgz").write_bytes(content or (tmp_path / "a.tgz").read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"b.tgz cannot be unpacked: "):
        unpack_archive(tmp_path / "b.tgz", tmp_path)


def test_get_downloads_unpacks_and_then_does_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_archive(tmp_path / "a.tgz", write_cub(tmp_path / "CUB_200_2011"))
    server.content = (tmp_path / "a.tgz").read_bytes()
    md5 = hashlib.md5(server.content).hexdigest()
    monkeypatch.setitem(LAYOUTS, "cub", replace(LAYOUTS["cub"], archive=Archive(server.url, md5, "CUB_200_2011")))
    for _ in range(2):
        assert download_dataset("cub", tmp_path / "got") == tmp_path / "got" / "CUB_200_2011"
    assert (tmp_path / "got" / "CUB_200_2011" / "images.txt").is_file()
    assert server.asked == [None]
    shutil.rmtree(tmp_path / "got" / "CUB_200_2011")
    download_dataset("cub", tmp_path / "got")  # from the archive that is there
    assert (tmp_path / "got" / "CUB_200_2011" / "images.txt").is_file()
    assert server.asked == [None]


def test_cars_says_where_to_look(tmp_path: Path) -> None:
    text = rf"cars: .* can no longer be downloaded .*cars_train/.*car_ims/; then run `pmsi data check {tmp_path}`"
    with pytest.raises(ValueError, match=text):
        download_dataset("cars", tmp_path)


def test_addresses_are_whole() -> None:
    for archive in filter(None, (layout.archive for layout in LAYOUTS.values())):
        assert re.fullmatch(r"https://\S+/[^/]+\.(tgz|tar\.gz)", archive.url)
        assert re.fullmatch(r"[0-9a-f]{32}", archive.md5)
        assert archive.url.rpartition("/")[2].startswith(f"{archive.folder}.")
