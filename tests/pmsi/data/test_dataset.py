"""Reading data sets: what is listed, what is decoded, and what is said about bad input before anything is decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from PIL import Image
from torch import Tensor

from pmsi.data import typefaces
from pmsi.data.dataset import DataName, Dataset, load_dataset
from pmsi.data.decoding import collect_images, decode_images
from pmsi.data.layouts import LayoutName, list_images
from pmsi.data.storage import ImageFiles
from pmsi.data.typefaces import Rendered, render_typefaces
from tests.helpers.dataset_files import (
    CARS,
    CLASSES,
    COLOURS,
    VARIANTS,
    edit,
    save_image,
    write_aircraft,
    write_cars,
    write_cub,
    write_folder,
)

CUB100 = Path(__file__).parents[3] / "../shared/data/cub100"


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    return write_cub(tmp_path / "birds")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "flowers")


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is refused must be refused before an image is read."""
    monkeypatch.setattr("pmsi.data.decoding.read_image", lambda path: pytest.fail(f"{path} was read"))


def read(name: str, root: Path | None, *, skip: bool = False) -> Dataset:
    return load_dataset(name, root, resize=8, skip_unreadable=skip)


def refuse(name: str, root: Path | None, text: str, kind: type[Exception] = ValueError, *, skip: bool = False) -> None:
    with pytest.raises(kind, match=text):
        read(name, root, skip=skip)


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


def test_reads_cars_and_aircraft(tmp_path: Path) -> None:
    for name, root, classes in (
        ("cars", write_cars(tmp_path / "cars"), CARS),
        ("aircraft", write_aircraft(tmp_path / "aircraft"), VARIANTS),
    ):
        dataset = read(name, root)
        assert (dataset.name, dataset.classes, dataset.skipped) == (name, classes, ())
        assert (dataset.train.labels.tolist(), dataset.test.labels.tolist()) == ([0, 0, 1, 1, 2, 2], [0, 1, 2])
        for split in (dataset.train, dataset.test):
            wanted = torch.tensor(COLOURS)[split.labels][:, :, None, None]
            assert (split.images.int() - wanted).abs().max() <= 3  # 3: JPEG


@pytest.mark.usefixtures("no_decoding")
def test_tables_are_checked_before_an_image_is_read(cub: Path, folder: Path) -> None:
    (cub / "images" / CLASSES[2] / "2.png").unlink()
    refuse("cub", cub, "names 003.Green_Heron/2.png, which is not in", FileNotFoundError)
    edit(cub / "images.txt", "Knot/1.png", "Knot/0.png")
    refuse("cub", cub, "images.txt lists 001.Red_Knot/0.png more than once")
    (folder / "test" / "rose").rename(folder / "test" / "tulip")
    refuse("folder", folder, "same classes; train/ alone has rose, test/ alone has tulip")


def test_reads_an_image_folder(folder: Path) -> None:
    for name in ("notes.txt", "._0.jpg"):
        (folder / "train" / "iris" / name).write_text("not an image")
    (folder / "train" / ".cache").mkdir()
    save_image(folder / "train" / "rose" / "more" / "9.PNG")
    calls = []
    dataset = load_dataset("folder", folder, resize=8, progress=lambda *call: calls.append(call))
    assert dataset.classes == ("iris", "rose")
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    assert calls[:7] == [("folder: reading training images", n, 7) for n in range(1, 8)]
    assert calls[7:] == [("folder: reading test images", n, 4) for n in range(1, 5)]


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
    save_image(tmp_path / "b" / "0.png", (99, 0, 0))
    for n in range(20):
        save_image(tmp_path / "a" / f"{n:02}.png", (n, 0, 0))
    for n in (0, 2, 3, 4, 18, 19):
        spoil(tmp_path / "a" / f"{n:02}.png")
    dataset = read("folder", tmp_path, skip=True)
    assert dataset.train.images[:, 0, 0, 0].tolist() == [1, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 99]
    assert dataset.test.images[:, 0, 0, 0].tolist() == [9, 14]
    assert [Path(file).stem for file in dataset.skipped] == ["00", "02", "03", "18", "04", "19"]


def test_skipping_may_not_empty_a_class_or_the_test(folder: Path) -> None:
    for path in (folder / "test").rglob("*.jpg"):
        spoil(path)
    refuse("folder", folder, "there are no test images left after 4 unreadable ones were skipped", skip=True)
    for path in (folder / "train" / "rose").iterdir():
        spoil(path)
    refuse("folder", folder, "class rose has no training image left after 7 unreadable ones", skip=True)


def test_typefaces_need_no_root() -> None:
    dataset = load_dataset("typefaces", None, resize=16)
    assert (dataset.name, len(dataset.classes)) == ("typefaces", 12)
    assert (len(dataset.train.images), len(dataset.test.images)) == (720, 1200)
    assert "720 training and 1200 test images" in dataset.protocol
    assert not torch.equal(dataset.train.images, load_dataset("typefaces", None, resize=16, seed=1).train.images)


def test_asking_for_what_there_is_not(tmp_path: Path) -> None:
    refuse("dogs", tmp_path, f"data: unknown data set 'dogs'; choose {', '.join(get_args(DataName))}")
    refuse("typefaces", tmp_path, "typefaces: takes no --root")
    for name in get_args(LayoutName):
        refuse(name, None, f"{name}: needs the folder of the images; give it with --root")
        refuse(name, tmp_path / "nowhere", f"{name}: there is no folder .*nowhere", FileNotFoundError)
    with pytest.raises(ValueError, match="cub: resize must be at least 1 px, got 0"):
        load_dataset("cub", tmp_path, resize=0)
    assert load_dataset("cub", write_cub(tmp_path / "birds"), resize=1).train.images.shape == (6, 3, 1, 1)


@pytest.mark.skipif(not CUB100.is_dir(), reason="the 100 bird classes are not beside this checkout")
def test_lists_and_reads_real_birds() -> None:
    listing = list_images("cub", CUB100)
    assert (len(listing.classes), len(listing.train), len(listing.test)) == (100, 2999, 2903)
    assert all(listing.classes[label] == path.parent.name for path, label in listing.train)
    images, _ = collect_images(
        decode_images([p for p, _ in listing.train[:4]], 110, lambda *_: None, stop=True), 4, 110
    )
    assert (images.double().flatten(1).std(1) > 10).all()


def test_tensors_are_a_data_set() -> None:
    images, labels = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8), torch.tensor([0, 2, 1, 0, 2, 1])
    found = Dataset.from_tensors((images[:4], labels[:4]), (images[4:], labels[4:]), ["a", "b", "c"])
    assert found.classes == ("a", "b", "c")
    assert torch.equal(found.train.images, images[:4])
    assert torch.equal(found.test.labels, labels[4:])
    assert found.protocol == "3 classes, 4 training and 2 test images in memory."
    wrong: list[tuple[type[Exception], str, Tensor, Tensor]] = [
        (TypeError, "needs uint8 images and int64 labels, got torch.float32 and torch.int64", images / 255, labels),
        (TypeError, "got torch.uint8 and torch.int32", images, labels.int()),
        (ValueError, r"needs images \[N, 3, R, R\] and labels \[N\], got \[6, 3, 8, 7\]", images[..., :7], labels),
        (ValueError, r"got \[6, 3, 8, 8\] and \[5\]", images, labels[:5]),
        (ValueError, r"must have one size, got \[6, 3, 4, 4\] and \[6, 3, 8, 8\]", images[..., :4, :4], labels),
        (ValueError, r"labels must lie in 0..2, got 0..3", images, labels + (labels == 2)),
    ]
    for kind, message, some, few in wrong:
        with pytest.raises(kind, match=message):
            Dataset.from_tensors((some, few), (images, labels), ["a", "b", "c"])


def test_identity_tells_labels_and_names_apart() -> None:
    images, labels = torch.zeros(6, 3, 8, 8, dtype=torch.uint8), torch.arange(6) % 3

    def identify(labels: torch.Tensor, names: str = "abc") -> dict[str, Any]:
        return Dataset.from_tensors((images, labels), (images[:3], labels[:3]), names).identity

    first = identify(labels)
    assert identify(labels.clone()) == first
    assert identify((labels + 1) % 3) != first
    assert identify(labels, "abd") != first
    assert first["class_names"] == ["a", "b", "c"]


def test_identity_of_files_is_their_content(tmp_path: Path) -> None:
    paths = [tmp_path / "one" / "a.png", tmp_path / "two" / "a.png"]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b"begins" + bytes(20_000) + b"ends")
    crcs = [ImageFiles([path], 8).content_crc32 for path in paths]
    assert crcs[0] == crcs[1]
    for change in (b"Begins" + bytes(20_000) + b"ends", b"begins" + bytes(20_000) + b"endS", b"begins" + b"ends"):
        paths[1].write_bytes(change)
        assert ImageFiles([paths[1]], 8).content_crc32 != crcs[0]
    assert ImageFiles([tmp_path / "nowhere"], 8).content_crc32 != crcs[0]
    assert crcs[0] == 4051096509  # that of every version, which checkpoints hold


def test_images_that_stay_in_files_are_known_by_them(folder: Path) -> None:
    plain, left = read("folder", folder), load_dataset("folder", folder, resize=8, stream=True)
    assert left.train.images.dtype == torch.uint8
    assert left.train.files is not None
    assert left.test.files is not None
    crcs = [left.train.files.content_crc32, left.test.files.content_crc32]
    assert left.identity == {**plain.identity, "data_crc32": left.train.crc32 ^ left.test.crc32, "files_crc32": crcs}


def test_labels_count_the_classes_of_a_network(folder: Path) -> None:
    plain = read("folder", folder)
    turned = plain.order_classes(["rose", "iris"])
    assert turned.classes == ("rose", "iris")
    assert torch.equal(turned.train.labels, 1 - plain.train.labels)
    assert torch.equal(turned.test.labels, 1 - plain.test.labels)
    for names, text in (
        (["iris", "tulip"], "the network knows the class 'tulip', folder has 'rose' instead .1 of 2 classes"),
        (["iris"], "the network knows 1 classes, folder has 2"),
    ):
        with pytest.raises(ValueError, match=text):
            plain.order_classes(names)


def test_no_more_typeface_images_are_rendered_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def render(resize: int, *, train_per_class: int, **_: Any) -> Rendered:
        asked.append(train_per_class)
        return render_typefaces(resize, train_per_class=train_per_class, test_per_class=1)

    monkeypatch.setattr(typefaces, "render_typefaces", render)
    monkeypatch.setattr(typefaces, "TRAIN_PER_CLASS", 6)
    counts = []
    for hold_out, train_per_class in ((None, None), (None, 1), (3, None), (3, 2)):
        found = load_dataset("typefaces", None, resize=4, hold_out=hold_out, train_per_class=train_per_class)
        counts.append((len(found.train.labels) // 12, len(found.test.labels) // 12))
    assert asked == [6, 1, 6, 6]  # what is held out lies among all
    assert counts == [(6, 1), (1, 1), (4, 2), (2, 2)]


def test_few_typeface_images_are_the_first_of_all() -> None:
    few, whole = (load_dataset("typefaces", None, resize=16, train_per_class=count) for count in (2, None))
    first = [row for row in range(720) if row % 60 < 2]
    assert torch.equal(few.train.images, whole.train.images[first])
    assert torch.equal(few.train.labels, whole.train.labels[first])
    assert torch.equal(few.test.images, whole.test.images)
    for count, text in ((61, "train_per_class is 61, but class"), (0, "train_per_class must be 1 or more, got 0")):
        with pytest.raises(ValueError, match=text):
            load_dataset("typefaces", None, resize=16, train_per_class=count)
