"""Reading data sets: what is listed, what is decoded, and what is said about bad input before anything is decoded."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pmsi import data
from pmsi.cache import decode, gather, read_image
from pmsi.data import Dataset, load

CUB100 = Path(__file__).parents[1] / "../shared/data/cub100"
CLASSES = ("001.Red_Knot", "002.Blue_Jay", "003.Green_Heron")
TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
COLOURS = ((220, 30, 40), (30, 40, 210), (40, 200, 30))


def save_image(path: Path, colour: tuple[int, ...] = (10, 200, 90)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 14), colour).save(path)


def write_lines(path: Path, *lines: str) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    """Three classes of two training and one test image, ids counted from 1."""
    root = tmp_path / "birds"
    files = [f"{name}/{n}.png" for name in CLASSES for n in range(3)]
    for i, file in enumerate(files):
        save_image(root / "images" / file, COLOURS[i // 3])
    write_lines(root / "classes.txt", *(f"{n} {name}" for n, name in enumerate(CLASSES, 1)))
    write_lines(root / "images.txt", *(f"{i} {file}" for i, file in enumerate(files, 1)))
    write_lines(root / "image_class_labels.txt", *(f"{i + 1} {i // 3 + 1}" for i in range(9)))
    write_lines(root / "train_test_split.txt", *(f"{i + 1} {int(i % 3 != 1)}" for i in range(9)))
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """ImageFolder of two classes with three training and two test images."""
    root = tmp_path / "flowers"
    for part, name, n in itertools.product(("train", "test"), ("iris", "rose"), range(3)):
        if (part, n) != ("test", 2):
            save_image(root / part / name / f"{n}.jpg")
    return root


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is refused must be refused before an image is read."""
    monkeypatch.setattr("pmsi.cache.read_image", lambda path, _: pytest.fail(f"{path} was read"))


def read(name: str, root: Path | None, *, skip: bool = False) -> Dataset:
    return load(name, root, resize=8, skip_unreadable=skip)


def refuse(name: str, root: Path | None, text: str, kind: type[Exception] = ValueError, *, skip: bool = False) -> None:
    with pytest.raises(kind, match=text):
        read(name, root, skip=skip)


def edit(path: Path, old: str, new: str) -> None:
    before, after = path.read_text().split(old, 1)
    path.write_text(before + new + after)


def test_reads_the_official_layout(cub: Path) -> None:
    dataset = read("cub", cub)
    assert (dataset.name, dataset.classes, dataset.skipped) == ("cub", CLASSES, ())
    assert (dataset.train.labels.tolist(), dataset.test.labels.tolist()) == ([0, 0, 1, 1, 2, 2], [0, 1, 2])
    for split in (dataset.train, dataset.test):
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
        assert split.images.is_contiguous()
        wanted = torch.tensor(COLOURS, dtype=torch.uint8)[split.labels][:, :, None, None]
        assert torch.equal(split.images, wanted.expand(-1, 3, 8, 8))
    for words in ("its train_test_split.txt: 3 classes, 6 training and 3 test images", "8 x 8 px", "left out: none"):
        assert words in dataset.protocol


def test_takes_the_parent_of_the_official_folder(cub: Path) -> None:
    (cub.parent / "download").mkdir()
    cub.rename(cub.parent / "download" / "CUB_200_2011")
    assert read("cub", cub.parent / "download").train.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_tables_may_come_in_any_order_with_any_class_ids(cub: Path) -> None:
    write_lines(cub / "train_test_split.txt", *(f"{i + 1} {int(i % 3 != 1)}" for i in reversed(range(9))), "")
    edit(cub / "classes.txt", "3 003", "200 003")
    edit(cub / "image_class_labels.txt", "7 3\n8 3\n9 3\n", "9 200\n8 200\n7  200 \n")
    assert read("cub", cub).train.labels.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("name", [*TABLES, "images"])
def test_cub_names_what_the_folder_lacks(cub: Path, name: str) -> None:
    (cub / name).rename(cub / "elsewhere")
    refuse("cub", cub, rf"cub: .*birds has no {name}; --root must be the folder that holds", FileNotFoundError)


def test_cub_names_a_listed_image_that_is_not_there(cub: Path) -> None:
    (cub / "images" / CLASSES[1]).rename(cub / "images" / "elsewhere")
    refuse("cub", cub, r"names 002.Blue_Jay/0.png, which is not in .*\(3 of 9 are missing\)", FileNotFoundError)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("image_class_labels.txt", "9 3\n", "", "image_class_labels.txt lacks image 9; .* disagree on 1 ids"),
        ("train_test_split.txt", "1 1\n2 0\n", "", "train_test_split.txt lacks image 1; .* disagree on 2 ids"),
        ("images.txt", "9 003.Green_Heron/2.png", "", "images.txt lacks image 9; images.txt and image_class"),
        ("images.txt", "9 003", "8 003", "images.txt line 9 repeats id 8; ids must be unique"),
        ("images.txt", "4 002.Blue_Jay/0.png", "4", "images.txt line 4 must be an id and a value, got '4'"),
        ("images.txt", "Knot/1.png", "Knot/0.png", "images.txt lists 001.Red_Knot/0.png more than once"),
        ("classes.txt", "3 003.Green_Heron", "", "image 7 the value '3'; it must be a class id of classes.txt"),
        ("train_test_split.txt", "4 1", "4 2", "image 4 the value '2'; it must be 0 .test. or 1 .training."),
        ("train_test_split.txt", "4 1\n5 0\n6 1", "4 0\n5 0\n6 0", "class 002.Blue_Jay has no training image"),
        ("classes.txt", "1 001", "4 004.Dodo\n1 001", r"class 004.Dodo has no training image \(1 of 4 classes\)"),
    ],
)
@pytest.mark.usefixtures("no_decoding")
def test_cub_tables_that_cannot_be_meant(cub: Path, name: str, old: str, new: str, message: str) -> None:
    edit(cub / name, old, new)
    refuse("cub", cub, message)


def test_cub_with_nothing_to_test_on_or_nothing_at_all(cub: Path) -> None:
    write_lines(cub / "train_test_split.txt", *(f"{i} 1" for i in range(1, 10)))
    refuse("cub", cub, "cub: there are no test images; the split must hold some out")
    for name in TABLES:
        (cub / name).write_text("")
    refuse("cub", cub, "cub: there are no images; --root must hold some")


def test_reads_an_image_folder(folder: Path) -> None:
    for name in ("notes.txt", "._0.jpg"):
        (folder / "train" / "iris" / name).write_text("not an image")
    (folder / "train" / ".cache").mkdir()
    save_image(folder / "train" / "rose" / "more" / "9.PNG")
    calls = []
    dataset = load("folder", folder, resize=8, progress=lambda *call: calls.append(call))
    assert dataset.classes == ("iris", "rose")
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    assert calls[:7] == [("folder: reading training images", n, 7) for n in range(1, 8)]
    assert calls[7:] == [("folder: reading test images", n, 4) for n in range(1, 5)]


def test_takes_val_where_there_is_no_test(folder: Path) -> None:
    save_image(folder / "val" / "iris" / "0.jpg")
    assert "its train/ and test/" in read("folder", folder).protocol
    (folder / "val").rename(folder / "spare")
    (folder / "test").rename(folder / "val")
    assert read("folder", folder).test.labels.tolist() == [0, 0, 1, 1]
    assert "its train/ and val/" in read("folder", folder).protocol


def test_holds_out_every_fifth_image_of_class_folders(tmp_path: Path) -> None:
    for name, count in (("b", 11), ("a", 4)):
        for n in range(count):
            save_image(tmp_path / name / f"{n:02}.png", (n, 0, 0))
    dataset = read("folder", tmp_path)
    assert dataset.classes == ("a", "b")
    assert dataset.test.labels.tolist() == [1, 1]
    assert dataset.test.images[:, 0, 0, 0].tolist() == [4, 9]
    assert dataset.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 5, 6, 7, 8, 10]
    assert "every 5th image of each in sorted order" in dataset.protocol


@pytest.mark.usefixtures("no_decoding")
def test_folder_whose_parts_do_not_fit(folder: Path) -> None:
    (folder / "test" / "rose").rename(folder / "test" / "tulip")
    refuse("folder", folder, "same classes; train/ alone has rose, test/ alone has tulip")
    (folder / "test" / "tulip").rename(folder / "train" / "tulip")
    refuse("folder", folder, "train/ alone has rose, tulip, test/ alone has none")
    (folder / "test").rename(folder / "other")
    refuse("folder", folder, "has train/ but no test/ or val/; --root must hold", FileNotFoundError)
    (folder / "train").rename(folder / "val")
    refuse("folder", folder, "has val/ but no train/", FileNotFoundError)


@pytest.mark.usefixtures("no_decoding")
def test_folder_with_too_little_in_it(folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "rose").rename(folder / "roses")
    (folder / "train" / "rose").mkdir()
    refuse("folder", folder, r"folder: class rose has no training image \(1 of 2 classes\)")
    (tmp_path / "void").mkdir()
    refuse("folder", tmp_path / "void", "folder: there are no images; --root must hold some")
    save_image(tmp_path / "one" / "a" / "0.png")
    refuse("folder", tmp_path / "one", "folder: there are no test images; the split must hold some out")


def spoil(path: Path, damage: str = "other") -> None:
    good = path.read_bytes()
    path.write_bytes({"truncated": good[:-40], "other": b"<html>404</html>", "empty": b""}[damage])


@pytest.mark.parametrize("damage", ["truncated", "other", "empty"])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_an_unreadable_image_is_named_or_left_out(folder: Path, damage: str, suffix: str) -> None:
    bad = folder / "train" / "iris" / f"9.{suffix}"
    Image.effect_noise((40, 40), 99).save(bad)
    spoil(bad, damage)
    refuse("folder", folder, rf"cannot read .*train/iris/9\.{suffix} .*--skip-unreadable")
    dataset = read("folder", folder, skip=True)
    assert dataset.skipped == (str(bad),)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (dataset.train.images.shape, dataset.train.images.is_contiguous()) == ((6, 3, 8, 8), True)
    assert dataset.protocol.endswith("unreadable files left out: 1.")


def test_what_is_left_after_skipping_keeps_its_place(tmp_path: Path) -> None:
    for n in range(20):
        save_image(tmp_path / "a" / f"{n:02}.png", (n, 0, 0))
    for n in (0, 2, 3, 4, 18, 19):
        spoil(tmp_path / "a" / f"{n:02}.png")
    dataset = read("folder", tmp_path, skip=True)
    assert dataset.train.images[:, 0, 0, 0].tolist() == [1, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17]
    assert dataset.test.images[:, 0, 0, 0].tolist() == [9, 14]
    assert [Path(file).stem for file in dataset.skipped] == ["00", "02", "03", "18", "04", "19"]


def test_skipping_may_not_empty_a_class_or_the_test(folder: Path) -> None:
    for path in (folder / "test").rglob("*.jpg"):
        spoil(path)
    refuse("folder", folder, "there are no test images left after 4 unreadable ones were skipped", skip=True)
    for path in (folder / "train" / "rose").iterdir():
        spoil(path)
    refuse("folder", folder, "class rose has no training image left after 7 unreadable ones", skip=True)


def test_every_kind_of_file_becomes_rgb(tmp_path: Path) -> None:
    kinds = {
        "alpha.png": (Image.new("RGBA", (9, 9), (10, 200, 90, 128)), (10, 200, 90)),
        "palette.png": (Image.new("RGB", (9, 9), (10, 200, 90)).quantize(), (10, 200, 90)),
        "grey.png": (Image.new("L", (9, 9), 77), (77, 77, 77)),
        "grey_alpha.png": (Image.new("LA", (9, 9), (77, 5)), (77, 77, 77)),
        "bits.png": (Image.new("1", (9, 9), 1), (255, 255, 255)),
        "deep.png": (Image.fromarray(np.full((9, 9), 77 * 256 + 3, np.uint16)), (77, 77, 77)),
        "cmyk.jpg": (Image.new("CMYK", (9, 9), (245, 55, 165, 0)), (10, 200, 90)),
    }
    for name, (image, wanted) in kinds.items():
        image.save(tmp_path / name)
        pixels = read_image(tmp_path / name, 9)
        assert (pixels.dtype, pixels.shape) == (torch.uint8, (3, 9, 9)), name
        assert (pixels.int() - torch.tensor(wanted)[:, None, None]).abs().max() <= 2, name  # 2: JPEG


def test_both_sides_are_resized(tmp_path: Path) -> None:
    Image.fromarray(np.repeat(np.array([[0, 200]], np.uint8), 30, 1)).save(tmp_path / "wide.png")
    (image,) = decode([tmp_path / "wide.png"], 6, lambda *_: None, stop=True)
    assert image is not None
    assert image.shape == (3, 6, 6)
    assert image[0, 0, [0, -1]].tolist() == [0, 200]


def test_the_number_of_threads_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 33, 47, 3), np.uint8)
    for n, image in enumerate(noise):
        Image.fromarray(image).save(tmp_path / f"{n:02}.png")
    paths, before = sorted(tmp_path.iterdir()), torch.get_num_threads()
    results: list[torch.Tensor] = []
    for count in (1, 2, 7):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        results.append(gather(decode(paths, 16, lambda *_: None, stop=True), 24, 16)[0])
    assert all(torch.equal(results[0], other) for other in results[1:])
    assert torch.get_num_threads() == before


def test_typefaces_need_no_root() -> None:
    dataset = load("typefaces", None, resize=16)
    assert (dataset.name, len(dataset.classes)) == ("typefaces", 12)
    assert (len(dataset.train.images), len(dataset.test.images)) == (720, 480)
    assert "720 training and 480 test images" in dataset.protocol
    assert not torch.equal(dataset.train.images, load("typefaces", None, resize=16, seed=1).train.images)


def test_asking_for_what_there_is_not(tmp_path: Path) -> None:
    refuse("cars", tmp_path, "data: unknown data set 'cars'; choose typefaces, cub or folder")
    refuse("typefaces", tmp_path, "typefaces: takes no --root")
    for name in ("cub", "folder"):
        refuse(name, None, f"{name}: needs the folder of the images; give it with --root")
        refuse(name, tmp_path / "nowhere", f"{name}: there is no folder .*nowhere", FileNotFoundError)
    with pytest.raises(ValueError, match="cub: resize must be at least 1 px, got 0"):
        load("cub", tmp_path, resize=0)


@pytest.mark.skipif(not CUB100.is_dir(), reason="the 100 bird classes are not beside this checkout")
def test_lists_and_reads_real_birds() -> None:
    listing = data._list_cub(CUB100)
    assert (len(listing.classes), len(listing.train), len(listing.test)) == (100, 2999, 2903)
    assert all(listing.classes[label] == path.parent.name for path, label in listing.train)
    images, _ = gather(decode([p for p, _ in listing.train[:4]], 110, lambda *_: None, stop=True), 4, 110)
    assert (images.double().flatten(1).std(1) > 10).all()
