"""Hostile servers and archives."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

from pmsi.data import download
from pmsi.data.download import download_dataset, download_file, unpack_archive
from pmsi.data.layouts import LAYOUTS
from pmsi.data.layouts.base import Archive
from tests.helpers.download_server import CONTENT, Server, serve
from tests.hostile.case import Case

_MD5 = hashlib.md5(CONTENT).hexdigest()
_PART = ".data.tgz.part"


def fetch(change: Callable[[Server], object], room: Path, *, begun: bytes = b"") -> None:
    """Download from a server that was changed, going on after ``begun``; afterwards, the same from an honest one."""
    path = room / "data.tgz"
    (room / _PART).write_bytes(begun)
    with serve() as server:
        change(server)
        try:
            download_file(server.url, path, _MD5, timeout=0.3 if server.stall else 20)
        finally:
            assert not path.exists() or path.read_bytes() == CONTENT
            for name in ("answer", "stall", "stop_after", "content", "shift", "lengths"):
                setattr(server, name, getattr(Server, name))
            honest = room / "honest" / "data.tgz"
            honest.parent.mkdir()
            if (room / _PART).exists():
                (honest.parent / _PART).write_bytes((room / _PART).read_bytes())
            download_file(server.url, honest, _MD5)
            assert honest.read_bytes() == CONTENT


def sends(**changes: Any) -> Callable[[Path], object]:
    def change(server: Server) -> None:
        for name, value in changes.items():
            setattr(server, name, value)

    return partial(fetch, change)


def redirect(target: str) -> Callable[[Path], object]:
    def change(server: Server) -> None:
        place = target.replace("ITSELF", server.url)
        server.answer = f"HTTP/1.0 302 Found\r\nLocation: {place}\r\n\r\n".encode()

    return partial(fetch, change)


def fetch_endless(room: Path) -> None:
    with mock.patch.object(download, "_MOST", 200_000):
        sends(lengths=False)(room)


def make_member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, size
    return member


def unpack(*members: tarfile.TarInfo, room: Path) -> None:
    """Unpack an archive of one good file and these; nothing of it is left, and nothing lies elsewhere."""
    path, root = room / "data.tgz", room / "root"
    root.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        for member in (make_member("good.txt"), *members):
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    try:
        unpack_archive(path, root)
    finally:
        names = [made.name for made in room.rglob("*")]
        assert not any("evil" in name for name in names), names


def holds(*members: tarfile.TarInfo) -> Callable[[Path], object]:
    return lambda room: unpack(*members, room=room)


def unpack_absolute(room: Path) -> None:
    unpack(make_member(f"{room}/out/kept.txt"), room=room)
    assert not (room / "out").exists()
    assert [made.name for made in (room / "root").rglob("kept.txt")] == ["kept.txt"]


def unpack_rights(room: Path) -> None:
    member = make_member("program")
    member.mode, member.uid = 0o7777, 12345
    unpack(member, room=room)
    found = (room / "root" / "program").stat()
    assert (found.st_mode & 0o7022, found.st_uid) == (0, os.getuid())


def unpack_bytes(content: bytes, room: Path) -> None:
    (room / "data.tgz").write_bytes(content)
    unpack_archive(room / "data.tgz", room)


def damage_middle() -> bytes:
    """An archive whose compressed bytes are wrong behind its beginning."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = make_member("numbers.txt", size=200_000)
        tar.addfile(member, io.BytesIO(b"".join(b"%06d" % n for n in range(40_000))))
    content = bytearray(gzip.compress(file.getvalue()))
    content[10_000:10_032] = bytes(32)
    return bytes(content)


def get_birds(url: str, md5: str, root: Path) -> None:
    LAYOUTS["cub"] = replace(LAYOUTS["cub"], archive=Archive(url, md5, "CUB_200_2011"))
    download_dataset("cub", root)


def get_with_two_processes(room: Path) -> None:
    """Two processes download and unpack one data set into one folder: one works, the other waits."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        tar.addfile(make_member("CUB_200_2011/images.txt", size=10**6), io.BytesIO(os.urandom(10**6)))
    with serve() as server:
        server.content = file.getvalue()
        md5 = hashlib.md5(server.content).hexdigest()
        context = get_context("fork")
        both = [context.Process(target=get_birds, args=(server.url, md5, room / "root")) for _ in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join()
        assert [process.exitcode for process in both] == [0, 0]
        assert server.asked == [None]
    for process in both:
        process.close()
    assert (room / "root" / "CUB_200_2011" / "images.txt").stat().st_size == 10**6


_HTML = b"<html><title>404</title></html>"
_KEPT = "what came is kept, and the same command goes on from there"
_GONE = "what came is deleted, and the same command begins anew"
DOWNLOADS = (
    Case("a server that breaks off", sends(stop_after=1000), "the server broke off", _KEPT, (_PART,)),
    Case("a server that stalls", sends(stop_after=1000, stall=True), "timed out", _KEPT, (_PART,)),
    Case(
        "a server that sends other bytes",
        sends(content=CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])),
        "and was deleted",
        _GONE,
    ),
    Case("a page of HTML with status 200", sends(content=_HTML), "and was deleted", _GONE),
    Case(
        "a range that begins elsewhere than was asked for",
        partial(fetch, lambda server: setattr(server, "shift", 7), begun=CONTENT[:1000]),
        "and was deleted",
        _GONE,
    ),
    Case(
        "a part of another file that is gone on with",
        partial(fetch, lambda _: None, begun=b"x" * 1000),
        "and was deleted",
        _GONE,
    ),
    Case("a server that never ends", fetch_endless, "which is no data set of the paper", keeps=(_PART,)),
    Case("a server that sends on to itself", redirect("ITSELF"), "could not download", keeps=(_PART,)),
    Case(
        "a server that sends on to `file:///etc/passwd`",
        redirect("file:///etc/passwd"),
        "is not allowed",
        keeps=(_PART,),
    ),
    Case("a server that sends on to no address", redirect("http://[::1"), "could not download", keeps=(_PART,)),
    Case(
        "a length that is a word",
        sends(answer=b"HTTP/1.0 200 OK\r\nContent-Length: x\r\n\r\n" + _HTML),
        "and was deleted",
        _GONE,
    ),
    Case(
        "a length below 0",
        sends(answer=b"HTTP/1.0 200 OK\r\nContent-Length: -5\r\n\r\n" + _HTML),
        "and was deleted",
        _GONE,
    ),
    Case(
        "a length of an exabyte",
        sends(answer=b"HTTP/1.0 200 OK\r\nContent-Length: 1000000000000000000\r\n\r\n"),
        "MB are to come, and",
        keeps=(_PART,),
    ),
    Case("an answer that is no HTTP", sends(answer=b"\0" * 2000), "could not download", keeps=(_PART,)),
    Case(
        "an error that spans lines and colours the terminal",
        sends(answer=b"HTTP/1.0 500 \x1b[31mred\x0bx\r\n\r\n"),
        "could not download",
        keeps=(_PART,),
    ),
    Case("two processes that download one data set", get_with_two_processes, then="one works, the other waits for it"),
    Case("an archive with `../evil.txt`", holds(make_member("../evil.txt")), "cannot be unpacked"),
    Case("an archive with `a/../../evil.txt`", holds(make_member("a/../../evil.txt")), "cannot be unpacked"),
    Case("an archive with an absolute path", unpack_absolute, then="unpacked below its folder"),
    Case(
        "an archive that writes through a link to the folder above",
        holds(make_member("up", tarfile.SYMTYPE, ".."), make_member("up/evil.txt")),
        "cannot be unpacked",
    ),
    Case("an archive with a link to `/etc`", holds(make_member("etc", tarfile.SYMTYPE, "/etc")), "cannot be unpacked"),
    Case(
        "an archive with a hard link to `/etc/passwd`",
        holds(make_member("evil", tarfile.LNKTYPE, "/etc/passwd")),
        "cannot be unpacked",
    ),
    Case(
        "an archive with a hard link to a file above",
        holds(make_member("evil", tarfile.LNKTYPE, "../data.tgz")),
        "cannot be unpacked",
    ),
    Case("an archive with a device", holds(make_member("evil", tarfile.CHRTYPE)), "cannot be unpacked"),
    Case("an archive with a pipe", holds(make_member("evil", tarfile.FIFOTYPE)), "cannot be unpacked"),
    Case("an archive with a program that runs as another user", unpack_rights, then="unpacked without these rights"),
    Case("an archive with a name of 5,000 letters", holds(make_member("n" * 5000)), "could not unpack"),
    Case("an archive that is no archive", partial(unpack_bytes, _HTML), "cannot be unpacked"),
    Case("an archive that is empty", partial(unpack_bytes, b""), "cannot be unpacked"),
    Case("an archive that is wrong in its middle", partial(unpack_bytes, damage_middle()), "cannot be unpacked"),
)
