"""Hostile image files, and folders of images."""

from __future__ import annotations

import io
import os
import struct
import zlib
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pmsi.cli.commands import main
from pmsi.data.dataset import Dataset, load_dataset
from pmsi.data.decoding import read_image, read_resized
from pmsi.data.layouts import list_images
from pmsi.data.storage import ImageFiles
from tests.helpers.dataset_files import save_image, write_folder
from tests.hostile.case import Case

KINDS = ("jpg", "png", "webp", "gif", "bmp", "tif", "ppm", "jp2")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def make_picture(kind: str) -> bytes:
    """The bytes of a file of noise, 23 x 17 px."""
    noise = np.random.default_rng(0).integers(0, 256, (17, 23, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, {"jpg": "jpeg", "tif": "tiff", "jp2": "jpeg2000"}.get(kind, kind))
    return file.getvalue()


def make_png(width: int, height: int, pixels: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG that says it has 8-bit RGB pixels of this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def load(root: Path) -> Dataset:
    """Decode a folder of images, as training does."""
    return load_dataset("folder", root, resize=8, workers=1, say=lambda _: None)


def load_with(content: bytes, name: str, room: Path) -> Dataset:
    """Load a folder of which one training image has this content."""
    root = write_folder(room)
    (root / "train" / "iris" / name).write_bytes(content)
    return load(root)


def cut_anywhere(room: Path) -> None:
    """Read files cut at random places; each is refused, or whole but for what belongs to no pixel."""
    for kind in KINDS:
        content, path = make_picture(kind), room / f"a.{kind}"
        path.write_bytes(content)
        whole = read_image(path)
        for length in np.random.default_rng(1).integers(0, len(content), 20):
            path.write_bytes(content[:length])
            try:
                assert read_image(path).equal(whole), length
            except Exception:  # as in `read_resized`
                continue
    path.write_bytes(content[: len(content) // 2])
    read_resized(path, 8)


def read_polyglot(room: Path) -> None:
    """A picture with an archive and a script behind it is the picture alone."""
    content = make_picture("jpg") + b"PK\x03\x04<script>fetch('http://evil.example')</script><?php system('id'); ?>"
    (room / "a.jpg").write_bytes(content)
    (room / "b.jpg").write_bytes(make_picture("jpg"))
    assert read_image(room / "a.jpg").equal(read_image(room / "b.jpg"))


def make_postscript() -> bytes:
    """A PostScript program that draws a picture."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "eps")
    return file.getvalue()


def read_postscript(room: Path) -> None:
    load_with(make_postscript(), "1.jpg", room)


def load_pipe(room: Path) -> None:
    root = write_folder(room)
    os.mkfifo(root / "train" / "iris" / "9.jpg")
    load(root)


def load_device(room: Path) -> None:
    root = write_folder(room)
    (root / "train" / "iris" / "9.jpg").symlink_to("/dev/zero")
    load(root)


def stream_pipe(room: Path) -> None:
    os.mkfifo(room / "9.jpg")
    files = ImageFiles([room / "9.jpg"], 8, 0)
    assert files.content_crc32
    found = files[0]
    assert isinstance(found, ValueError)
    raise found


def load_folder_called_as_an_image(room: Path) -> None:
    root = write_folder(room)
    (root / "train" / "iris" / "9.jpg").mkdir()
    assert len(load(root).train.labels) == 6


def link(target: str, room: Path, *, folder: bool = False) -> Path:
    root = write_folder(room)
    (root / "train" / "iris" / ("more" if folder else "9.jpg")).symlink_to(target)
    return root


def load_link_elsewhere(room: Path) -> None:
    save_image(room / "elsewhere" / "kept.jpg")
    assert len(load(link(str(room / "elsewhere" / "kept.jpg"), room / "root")).train.labels) == 7


def list_folder_link(target: str, room: Path) -> None:
    """What lies behind a link to a folder is not read, and the link is listed as left out."""
    save_image(room / "elsewhere" / "secret.jpg")
    root = link(target, room / "root", folder=True)
    listing = list_images("folder", root)
    assert [path.name for path in listing.left_out] == ["more"]
    assert len(load(root).train.labels) == 6


def load_class_link_to_parent(room: Path) -> None:
    root = write_folder(room)
    for part in ("train", "test"):
        (root / part / "loop").symlink_to("..")
    load(root)


def load_deep_folders(room: Path) -> None:
    """The image in 700 folders inside each other is found."""
    root = write_folder(room)
    here = Path.cwd()
    os.chdir(root / "train" / "iris")
    try:
        for _ in range(700):
            Path("d").mkdir()
            os.chdir("d")
        Path("deep.jpg").write_bytes(make_picture("jpg"))
    finally:
        os.chdir(here)
    assert len(load(root).train.labels) == 7


def check_named(room: Path) -> None:
    """Classes and images of such names are read, and `pmsi data check` shows each on one line without its codes."""
    for name in _NAMES.values():
        for part in ("train", "test"):
            save_image(room / "root" / part / name / f"{name[:200]}.png")
        (room / "root" / "train" / name / "bad.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot read"):
        load(room / "root")
    for _ in range(2):  # the second time from the cache
        dataset = load_dataset(
            "folder", room / "root", resize=8, skip_unreadable=True, cache=room / "cache", say=lambda _: None
        )
        assert dataset.classes == tuple(sorted(_NAMES.values()))
        assert len(dataset.train.labels) == len(dataset.skipped) == len(_NAMES)
    shown = run_pmsi("data", "check", str(room / "root"), "--sheet", str(room / "sheet.png"), "--workers", "1")
    assert sum("/bad.jpg: " in line for line in shown.splitlines()) == len(_NAMES), shown
    assert not {*shown} & {"\x1b", "\x07", "\u202e"}


def run_pmsi(*words: str) -> str:
    """Run a command; what it prints to a terminal that takes UTF-8 alone."""
    shown = io.BytesIO()
    terminal = io.TextIOWrapper(shown, encoding="utf-8")
    with redirect_stdout(terminal), redirect_stderr(terminal):
        assert main([*words]) in (0, 1, 2)
        terminal.flush()
    return shown.getvalue().decode()


def list_ten_thousand_classes(room: Path) -> None:
    elsewhere = room / "elsewhere"
    save_image(elsewhere / "1.jpg")
    for part in ("train", "test"):
        (room / "root" / part).mkdir(parents=True)
        for number in range(10_000):
            os.symlink(elsewhere, f"{room}/root/{part}/c{number:05}")  # noqa: PTH211 - twice as fast
    listing = list_images("folder", room / "root")
    assert (len(listing.classes), len(listing.train), len(listing.test)) == (10_000, 10_000, 10_000)


_NAMES = {
    "a line break": "a\nb",
    "codes of a terminal": "a\x1b[31mb\x07",
    "markup of pages and terminals": "<script>alert(1)<[red]".replace("/", ""),
    "bytes that are no UTF-8": os.fsdecode(b"caf\xe9"),
    "letters of many scripts, and marks that turn them round": "\u202e\u05d0\u4e2d\U0001f426",
    "250 letters": "n" * 250,
    "`~`, spaces, a dash and a dollar": "-rf ~ $(id)",
}
_READ = "cannot read"
_PNG = partial(make_png, 8, 8, zlib.compress(bytes(25 * 8)))
_BOMB = zlib.compress(bytes(10**8), 1)

IMAGES = (
    Case(f"{', '.join(map(str.upper, KINDS))}: files cut at random places", cut_anywhere, _READ),
    Case("an empty file", partial(load_with, b"", "1.jpg"), _READ),
    Case("a page of HTML called `.jpg`", partial(load_with, b"<html>404 Not Found</html>", "1.jpg"), _READ),
    Case(
        "a PNG that says it has 60,000 x 60,000 px",
        partial(load_with, make_png(60_000, 60_000, b""), "1.png"),
        "could be decompression bomb",
    ),
    Case(
        "a PNG with a text of 100 MB, packed to 0.1 MB",
        partial(load_with, _PNG((b"zTXt", b"a\0\0" + _BOMB)), "1.png"),
        _READ,
    ),
    Case(
        "a PNG whose pixels unpack to 100 MB more than it says",
        partial(load_with, make_png(8, 8, _BOMB), "1.png"),
        then="the pixels that it says are read, and nothing more is unpacked",
    ),
    Case(
        "a JPEG that is an archive and a script as well",
        read_polyglot,
        then="read as the picture; what follows is not looked at",
    ),
    Case("a PostScript program called `.jpg`", read_postscript, "cannot identify image file", "it is not run"),
    Case("a pipe among the images", load_pipe, "is no file but a folder, a pipe or a device"),
    Case("a pipe among images that are streamed", stream_pipe, "is no file but a folder, a pipe or a device"),
    Case("a link to a device that never ends", load_device, "is no file but a folder, a pipe or a device"),
    Case("a link to itself", lambda room: load(link("9.jpg", room)), _READ),
    Case("a link that leads nowhere", lambda room: load(link("nowhere", room)), _READ),
    Case("a link to an image elsewhere", load_link_elsewhere, then="read as the image that it leads to"),
    Case(
        "a link to a folder elsewhere, in the folder of a class",
        partial(list_folder_link, "../../../elsewhere"),
        then="not followed, and listed as left out",
    ),
    Case(
        "a link to the folder above, which makes a loop",
        partial(list_folder_link, ".."),
        then="not followed, and listed as left out",
    ),
    Case("a class that is a link to the folder above it", load_class_link_to_parent, "must lie above the classes"),
    Case("a folder called `9.jpg`", load_folder_called_as_an_image, then="not taken for an image"),
    Case("an image in 700 folders, each in the one before", load_deep_folders, then="read"),
    Case(
        f"classes and images whose names hold {', '.join(_NAMES)}",
        check_named,
        then="read; shown on one line, with escapes for what is not printable",
    ),
    Case("10,000 classes", list_ten_thousand_classes, then="listed"),
)
