"""`pmsi data check` and `pmsi data get`: what is found in small data sets with planted faults, and what is printed."""

from __future__ import annotations

import ast
import hashlib
import http.server
import itertools
import shutil
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pmsi.cli import data as cli_data
from pmsi.cli.commands import main
from pmsi.data import check as datacheck
from pmsi.data.check import Inspection, compare_with_table, inspect_images, write_sheet
from pmsi.data.decoding import read_image
from pmsi.data.layouts import LAYOUTS, list_images
from pmsi.data.layouts.base import Archive, Listing
from pmsi.paper import TABLES, Row
from tests.helpers.dataset_files import CLASSES, edit, save_image, write_cars_devkit, write_cub

CUB100 = Path(__file__).parents[3] / "../shared/data/cub100"
TRAIN = ("001.Red_Knot/0.png", "001.Red_Knot/2.png", "002.Blue_Jay/0.png", "002.Blue_Jay/2.png")
TEST = ("001.Red_Knot/1.png", "002.Blue_Jay/1.png", "003.Green_Heron/1.png")


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Nine different pictures in CUB's layout, 40 to 48 px high and 60 px wide."""
    root = write_cub(tmp_path / "birds")
    generator = np.random.default_rng(0)
    for n, path in enumerate(sorted(root.rglob("*.png"))):
        coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((60, 40 + n), Image.Resampling.BICUBIC).save(path)
    return root


def check(root: Path) -> Inspection:
    return inspect_images(list_images("cub", root))


def copy(root: Path, old: str, new: str) -> None:
    shutil.copyfile(root / "images" / old, root / "images" / new)


def list_names(pairs: tuple[datacheck.Pair, ...]) -> list[tuple[str, str, str, bool]]:
    return [("/".join(a.parts[-2:]), "/".join(b.parts[-2:]), likeness, differ) for a, b, likeness, differ in pairs]


def test_a_data_set_that_is_whole(birds: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    checked = inspect_images(list_images("cub", birds), lambda *call: calls.append(call))
    assert (checked.findings, checked.unreadable, checked.deep) == ((), (), ())
    assert (checked.shared, checked.repeated, checked.alike) == ((), (), ())
    assert checked.widths == (60,) * 9
    assert sorted(checked.heights) == list(range(40, 49))
    assert checked.fewest == tuple((name, 2, 1) for name in CLASSES)
    assert checked.fits_table
    assert calls == [("cub: checking images", n, 9) for n in range(1, 10)]


def test_classes_with_the_fewest_training_images_come_first(birds: Path) -> None:
    edit(birds / "train_test_split.txt", "9 1", "9 0")
    edit(birds / "train_test_split.txt", "5 0", "5 1")
    assert check(birds).fewest == ((CLASSES[2], 1, 2), (CLASSES[0], 2, 1), (CLASSES[1], 3, 0))


def test_unreadable_images_are_named_with_the_reason(birds: Path) -> None:
    (birds / "images" / TRAIN[1]).write_bytes(b"<html>404</html>")
    bad = birds / "images" / TEST[2]
    bad.write_bytes(bad.read_bytes()[:-60])
    checked = check(birds)
    assert [path for path, _ in checked.unreadable] == [birds / "images" / TRAIN[1], bad]
    assert "cannot identify image file" in checked.unreadable[0][1]
    assert "truncated" in checked.unreadable[1][1]
    assert checked.findings == ("2 unreadable",)
    assert len(checked.widths) == 7


def test_an_image_of_both_splits(birds: Path) -> None:
    copy(birds, TRAIN[0], TEST[0])
    other = Image.open(birds / "images" / TRAIN[2])
    other.save(birds / "images" / TEST[2], compress_level=1)
    checked = check(birds)
    assert list_names(checked.shared) == [
        (TRAIN[0], TEST[0], "the same file", False),
        (TRAIN[2], TEST[2], "the same pixels", True),
    ]
    assert (checked.repeated, checked.alike) == ((), ())
    assert checked.findings == ("2 in both training and test",)


def test_an_image_twice_in_one_split_is_wrong_under_two_labels(birds: Path) -> None:
    copy(birds, TRAIN[0], TRAIN[1])
    checked = check(birds)
    assert list_names(checked.repeated) == [(TRAIN[0], TRAIN[1], "the same file", False)]
    assert checked.findings == ()
    copy(birds, TRAIN[0], TRAIN[2])
    copy(birds, TEST[1], TEST[2])
    checked = check(birds)
    assert list_names(checked.repeated) == [
        (TRAIN[0], TRAIN[1], "the same file", False),
        (TRAIN[0], TRAIN[2], "the same file", True),
        (TEST[1], TEST[2], "the same file", True),
    ]
    assert checked.findings == ("2 in one split under two labels",)
    copy(birds, TRAIN[0], TEST[1])  # the same picture over and over gives one pair an image
    copy(birds, TRAIN[0], TEST[2])
    checked = check(birds)
    assert [names[:2] for names in list_names(checked.shared)] == [(TRAIN[0], TEST[1]), (TRAIN[0], TEST[2])]
    assert [names[:2] for names in list_names(checked.repeated)] == [(TRAIN[0], TRAIN[1]), (TRAIN[0], TRAIN[2])]


def test_the_same_bytes_of_pixels_in_another_shape_are_another_image(birds: Path) -> None:
    for name, size in ((TRAIN[0], (20, 30)), (TEST[0], (30, 20))):
        Image.new("RGB", size, (9, 9, 9)).save(birds / "images" / name)
    checked = check(birds)
    assert checked.shared == ()
    assert [names[:2] for names in list_names(checked.alike)] == [(TRAIN[0], TEST[0])]


def test_images_that_look_alike_are_a_note(birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.open(birds / "images" / TRAIN[3]).convert("RGB")
    image.resize((90, 60)).save(birds / "images" / TEST[2])
    monkeypatch.setattr(datacheck, "_BLOCK", 2)  # test images in more than one block
    checked = check(birds)
    assert [names[:2] for names in list_names(checked.alike)] == [(TRAIN[3], TEST[2])]
    assert int(checked.alike[0].likeness.split()[0]) < 25
    assert checked.findings == ()


@pytest.mark.parametrize(("bits", "alike"), [(0, True), (48, True), (49, False), (100, False)])
def test_outlines_may_differ_in_48_bits(bits: int, alike: bool) -> None:
    outline = np.random.default_rng(0).integers(0, 256, 32, np.uint8)
    flipped = np.packbits(np.unpackbits(outline) ^ (np.arange(256) < bits))
    known = {row: datacheck.Facts("", "", (1, 1), of) for row, of in enumerate((~outline, outline, flipped))}
    found = list(datacheck._pair_alike(known, 2))
    assert found == ([((1, 2), f"{bits} of 256 bits apart")] if alike else [])


def make_listing(name: str, classes: int, train: int, test: int) -> Listing:
    def entries(count: int) -> Any:
        return tuple((Path("x"), n % classes) for n in range(count))

    return Listing(name, tuple(map(str, range(classes))), entries(train), entries(test), "a rule")


@pytest.mark.parametrize(
    ("name", "counts", "text", "fits"),
    [
        ("cub", (200, 5994, 5794), "matches the paper's Table I", True),
        ("cars", (196, 8144, 8041), "matches the paper's Table I", True),
        ("aircraft", (100, 6667, 3333), "matches the paper's Table I", True),
        ("cub", (100, 5994, 5794), "a part of what the paper's Table I has (200 classes, 5,994 training and", True),
        ("cub", (200, 5993, 5794), "200 classes, 5,993 training and 5,794 test images, where the paper's Table", False),
        ("cub", (200, 5994, 5795), "200 classes, 5,994 training and 5,795 test images, where the paper's Table", False),
        ("cars", (197, 8144, 8041), "197 classes, 8,144 training and 8,041 test images, where the paper's", False),
        ("aircraft-family", (70, 6667, 3333), "not a data set of the paper's Table I", True),
        ("folder", (200, 5994, 5794), "not a data set of the paper's Table I", True),
    ],
)
def test_counts_are_compared_with_table_1(name: str, counts: tuple[int, int, int], text: str, fits: bool) -> None:
    said, fine = compare_with_table(make_listing(name, *counts))
    assert said.startswith(text)
    assert fine == fits


def test_a_whole_data_set_with_other_counts_is_a_finding(birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for test, matches in ((3, True), (4, False)):
        table = replace(TABLES[1], rows={"cub": Row("CUB-200-2011", (3, 6, test))})
        monkeypatch.setattr(datacheck, "TABLES", {1: table})
        assert (check(birds).table == "matches the paper's Table I") == matches
    checked = check(birds)
    assert checked.findings == (checked.table,)


def test_an_interrupted_check_reads_no_further(birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = list_images("cub", birds)
    seen: list[Path] = []

    def read(path: Path) -> None:
        seen.append(path)
        time.sleep(0.001)
        raise ValueError

    monkeypatch.setattr(datacheck, "read_image", read)
    many = Listing("cub", listing.classes, listing.train * 500, listing.test, listing.rule)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspect_images(many, stop)
    assert len(seen) < 1000  # of 3,003


def test_the_sheet_shows_training_and_test_images(birds: Path, tmp_path: Path) -> None:
    colours = {"0": (255, 0, 0), "2": (0, 255, 0), "1": (0, 0, 255)}  # training, training, test
    for path in birds.rglob("*.png"):
        Image.new("RGB", (60, 60), colours[path.stem]).save(path)
    (birds / "images" / TRAIN[0]).write_bytes(b"not an image")
    edit(birds / "classes.txt", "3 003.Green_Heron", r"3 $\003 [red]{Green}_Heron$")  # no formula
    write_sheet(list_images("cub", birds), tmp_path / "new" / "sheet")
    with Image.open(tmp_path / "new" / "sheet") as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    half = pixels.shape[1] // 2
    shares = {colour: (pixels == colour).all(2) for colour in colours.values()}
    place = {colour: (found[:, :half].sum(), found[:, half:].sum()) for colour, found in shares.items()}
    one = place[255, 0, 0][0] / 2  # one of the three red ones cannot be read
    assert one > 5000
    assert place[0, 255, 0][0] == pytest.approx(3 * one, rel=0.02)
    assert place[0, 0, 255][1] == pytest.approx(3 * one, rel=0.02)
    assert (place[255, 0, 0][1], place[0, 255, 0][1], place[0, 0, 255][0]) == (0, 0, 0)


def test_the_sheet_spreads_over_many_classes(birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = list_images("cub", birds)
    train = tuple((listing.train[label % 6][0].parent / f"{label}.png", label) for label in range(40))
    shown: list[int] = []

    def watch(path: Path) -> Any:
        shown.append(int(path.stem))
        return read_image(listing.train[0][0])

    monkeypatch.setattr(datacheck, "read_image", watch)
    write_sheet(Listing("cub", tuple(map(str, range(40))), train, (), ""), tmp_path / "sheet.png")
    assert shown == [0, 6, 11, 17, 22, 28, 33, 39]


def ask(root: Path, *more: str, data: str | None = None) -> int:
    return main(["data", "check", str(root), *(["--data", data] if data else []), *more])


def test_the_command_says_what_is_there(birds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(birds / "classes.txt", "3 003.Green_Heron", "3 003 [red]Heron")
    assert ask(birds, "--sheet", str(tmp_path / "sheet.png")) == 0
    said = capsys.readouterr()
    assert said.err == ""
    for words in (
        "CUB-200-2011 layout, split by its train_test_split.txt",
        "6 training, 3 test",
        "40 to 48 px, median 44",
        "60 to 60 px, median 60",
        "003 [red]Heron: 2 training, 1 test",
        "a part of what the paper's Table I has",
        "Nothing is wrong.",
        f"Contact sheet: {tmp_path / 'sheet.png'}",
    ):
        assert words in said.out
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"


def test_the_command_says_what_is_wrong(birds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy(birds, TRAIN[0], TEST[1])
    (birds / "images" / TRAIN[3]).write_bytes(b"not an image")
    assert ask(birds) == 1
    said = capsys.readouterr().out
    assert "Unreadable (1):\n  images/002.Blue_Jay/2.png: cannot identify image file" in said
    assert (
        "In training and test (1):\n  images/001.Red_Knot/0.png and images/002.Blue_Jay/1.png: the same file,"
        " under two labels\n" in said
    )
    assert said.rstrip().endswith("Wrong: 1 unreadable; 1 in both training and test.")


def test_the_command_shortens_long_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_image(tmp_path / "train" / "b" / "0.jpg")
    for n in range(12):
        path = tmp_path / "train" / "a" / f"{n:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    Image.new("RGB", (9, 9)).save(path)
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    assert ask(tmp_path) == 1
    said = capsys.readouterr().out
    assert "Unreadable (22):\n  train/a/00.jpg: " in said
    assert "train/a/09.jpg: " in said
    assert "train/a/10.jpg: " not in said
    assert "  and 12 more\n" in said
    for path in tmp_path.rglob("*.jpg"):
        path.write_bytes(b"")
    assert ask(tmp_path) == 1
    assert "unknown" in capsys.readouterr().out  # sizes


def test_the_command_lists_what_is_left_out_and_what_is_scaled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part, name in itertools.product(("Train", "val", "test"), "ab"):
        path = tmp_path / part / name / "0.png"
        save_image(path)
        Image.fromarray(
            np.random.default_rng(len(list(tmp_path.rglob("*")))).integers(0, 2**16, (9, 9), np.uint16)
        ).save(path)
    (tmp_path / "Train/a/photo.heic").touch()
    save_image(tmp_path / "test/loose.jpg")
    assert ask(tmp_path) == 0
    said = capsys.readouterr().out
    assert "Left out (3):\n  val/\n  Train/a/photo.heic\n  test/loose.jpg\n" in said
    assert "Of more than 8 bits, scaled to 8 (4):\n  Train/a/0.png: the brightest of 255 is 2" in said
    Image.fromarray(np.full((9, 9), 4095, np.uint16)).save(tmp_path / "Train/a/0.png")
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(tmp_path / "Train/b/0.png")
    ask(tmp_path)
    said = capsys.readouterr().out
    assert "Train/a/0.png: the brightest of 255 is 15; very dark: are they 10 or 12 bits" in said
    assert "Train/b/0.png: the brightest of 255 is 0\n" in said  # black in any number of bits


def test_the_command_refuses_what_cannot_be_listed(birds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (birds / "images" / TRAIN[3]).unlink()
    assert ask(birds) == 2
    assert "pmsi: cub: images.txt names 002.Blue_Jay/2.png, which is not in" in capsys.readouterr().err
    assert ask(birds, data="cars") == 2
    assert ask(write_cars_devkit(birds.parent / "cars")) == 1  # plain pictures: all alike


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """CUB is what a server of this process has."""
    (tmp_path / "served").mkdir()
    file = tmp_path / "served" / "birds.tgz"
    with tarfile.open(file, "w:gz") as tar:
        tar.add(write_cub(tmp_path / "made"), "CUB_200_2011")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = partial(Handler, directory=str(file.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        md5 = hashlib.md5(file.read_bytes()).hexdigest()
        archive = Archive(f"http://127.0.0.1:{server.server_port}/birds.tgz", md5, "CUB_200_2011")
        monkeypatch.setitem(LAYOUTS, "cub", replace(LAYOUTS["cub"], archive=archive))
        yield
        server.shutdown()


@pytest.mark.usefixtures("published")
def test_what_was_downloaded_can_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "got"
    for _ in range(2):
        assert main(["data", "get", "cub", "--root", str(root)]) == 0
        assert f"{root / 'CUB_200_2011'}: 6 training and 3 test images" in capsys.readouterr().out
    assert ask(root) == 1  # plain pictures: all alike
    (root / "CUB_200_2011" / "classes.txt").unlink()
    assert main(["data", "get", "cub", "--root", str(root)]) == 2
    assert "has no classes.txt; --root must" in capsys.readouterr().err
    assert main(["data", "get", "cars", "--root", str(root)]) == 2
    assert "cars: Stanford Cars can no longer be downloaded" in capsys.readouterr().err


def test_every_setting_is_explained() -> None:
    checked = 0
    for node in ast.walk(ast.parse(Path(cli_data.__file__).read_text())):
        if isinstance(node, ast.ClassDef) and node.name in {"Check", "Get"}:
            for field, text in itertools.pairwise(node.body):
                if isinstance(field, ast.AnnAssign):
                    assert isinstance(text, ast.Expr), f"{node.name}: {ast.unparse(field)}"
                    checked += 1
    assert checked == 6


@pytest.mark.skipif(not CUB100.is_dir(), reason="the 100 bird classes are not beside this checkout")
def test_real_birds_of_both_splits_are_found() -> None:
    listing = list_images("cub", CUB100)
    kept = [classes for classes, name in enumerate(listing.classes) if name in {"006.Bobolink", "055.Hooded_Oriole"}]
    train, test = (tuple(entry for entry in part if entry[1] in kept) for part in (listing.train, listing.test))
    checked = inspect_images(Listing("cub", listing.classes, train, test, listing.rule))
    assert sorted((a.name, b.name) for a, b, *_ in checked.alike) == [
        ("0042.jpg", "0014.jpg"),
        ("0045.jpg", "0026.jpg"),
    ]
    assert checked.findings == ()
