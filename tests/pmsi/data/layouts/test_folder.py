"""Image folders: parts, classes, and one clear error for each fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmsi.data.layouts import list_images
from pmsi.data.layouts.folder import name_part
from pmsi.data.pixels import SUFFIXES
from tests.helpers.dataset_files import list_files, list_labels, refuse, save_image, write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "flowers")


def test_folder_takes_val_where_there_is_no_test(folder: Path) -> None:
    save_image(folder / "val" / "iris" / "0.jpg")
    assert list_images("folder", folder).rule == "image folder split into its train/ and test/"
    (folder / "val").rename(folder / "spare")
    (folder / "test").rename(folder / "val")
    listing = list_images("folder", folder)
    assert list_labels(listing) == ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1])
    assert listing.rule == "image folder split into its train/ and val/"


def test_folder_whose_parts_do_not_fit(folder: Path) -> None:
    (folder / "test" / "rose").rename(folder / "test" / "tulip")
    refuse("folder", folder, "same classes; train/ alone has rose, test/ alone has tulip")
    (folder / "test" / "tulip").rename(folder / "train" / "tulip")
    refuse("folder", folder, "train/ alone has rose, tulip, test/ alone has none")
    (folder / "test").rename(folder / "other")
    refuse("folder", folder, "has train/ but no test/ or val/; --root must hold", FileNotFoundError)
    (folder / "train").rename(folder / "val")
    refuse("folder", folder, "has val/ but no train/", FileNotFoundError)


def test_folder_with_too_little_in_it(folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "rose").rename(folder / "roses")
    (folder / "train" / "rose").mkdir()
    refuse("folder", folder, r"folder: class rose has no training image \(1 of 2 classes\)")
    (tmp_path / "void").mkdir()
    refuse("folder", tmp_path / "void", "folder: there are no images; --root must hold some")
    save_image(tmp_path / "one" / "a" / "0.png")
    refuse("folder", tmp_path / "one", "folder: there are no test images; the split must hold some out")
    (tmp_path / "one" / "a" / "1").mkdir()
    for n in range(5):
        save_image(tmp_path / "one" / "a" / "1" / f"{n}.png")
    refuse("folder", tmp_path / "one", "folder: there is one class, a; --root must hold two or more")


TRAIN = ("train", "Train", "TRAIN", "training", "Training Set", "trainset", "TrainImages", "train_data", "seg_train")
TEST = ("test", "Test", "TEST", "testing", "Testing-Set", "testset", "TestImages", "test1", "seg_test", "evaluation")
VAL = ("val", "Val", "VAL", "valid", "validation", "Validation_Set", "valset", "dev")


def test_parts_are_known_in_every_usual_spelling() -> None:
    assert {name_part(name) for name in (*TRAIN, "trainval", "train_val")} == {"train"}
    assert {name_part(name) for name in TEST} == {"test"}
    assert {name_part(name) for name in VAL} == {"val"}
    fillers = ("set", "data", "dataset", "split", "image", "images", "img", "imgs", "photos", "files", "seg", "crops")
    assert {name_part(name) for word in fillers for name in (f"{word}_train", f"Train{word.title()}")} == {"train"}
    names = ("Train station", "test tube", "Valley quail", "images", "1", "contest", "\u00e9preuve", "Devon rex")
    assert {name_part(name) for name in names} == {None}


@pytest.mark.parametrize(("train", "test"), [*zip(TRAIN, TEST, strict=False), *(("training", name) for name in VAL)])
def test_a_split_is_one_in_every_spelling(folder: Path, train: str, test: str) -> None:
    wanted = list_labels(list_images("folder", folder))
    (folder / "train").rename(folder / "1")
    (folder / "test").rename(folder / "2")
    (folder / "1").rename(folder / train)
    (folder / "2").rename(folder / test)
    listing = list_images("folder", folder)
    assert (listing.classes, list_labels(listing)) == (("iris", "rose"), wanted)
    assert listing.rule == f"image folder split into its {train}/ and {test}/"


def test_two_folders_of_one_part_are_refused(folder: Path) -> None:
    (folder / "Training").mkdir()
    refuse("folder", folder, "Training/ and train/ in .* both look like the train images; move one away")


@pytest.mark.parametrize("place", ["test/1.jpg", "test/unknown/1.jpg", "test/test/1.jpg"])
def test_test_images_without_labels_are_not_tested_on(folder: Path, place: str) -> None:
    """As competitions give them, beside labelled ones in val/."""
    (folder / "test").rename(folder / "val")
    save_image(folder / place)
    listing = list_images("folder", folder)
    assert list_labels(listing) == ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1])
    assert listing.rule.endswith("its train/ and val/; test/ has no folders of these classes, and is not used")
    assert folder / "test" in listing.left_out
    (folder / "val").rename(folder / ".val")
    other = place == "test/unknown/1.jpg"
    text = "same classes; train/ alone" if other else r"test/ has no class folders \(1 images without a label lie there"
    refuse("folder", folder, text, ValueError if other else FileNotFoundError)


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".hidden"])
def test_hidden_folders_are_not_read(folder: Path, hidden: str) -> None:
    """Jupyter keeps copies of what was opened, Synology thumbnails, and macOS's archives forks."""
    wanted = list_images("folder", folder)
    for place in (folder, folder / "train", folder / "train/iris", folder / "test/rose", folder / "test"):
        save_image(place / hidden / "0-checkpoint.jpg")
        save_image(place / hidden / "below" / "iris" / "1.jpg")
    assert list_images("folder", folder) == wanted


def test_every_suffix_of_an_image_is_read_and_the_rest_is_listed(folder: Path) -> None:
    before = len(list_images("folder", folder).train)
    for suffix in (*SUFFIXES, *map(str.upper, SUFFIXES)):
        save_image(folder / "a.png")
        (folder / "a.png").rename(folder / "train/iris" / f"new-{suffix}{suffix}")
    odd = ["photo.heic", "scan.jpg.txt", "without", "raw.CR2"]
    for name in odd:
        (folder / "train/iris" / name).touch()
    (folder / "train/iris/album").symlink_to(folder / "test/rose")
    save_image(folder / "train/loose.jpg")
    (folder / "train/README.txt").touch()  # lies where no image is looked for
    listing = list_images("folder", folder)
    assert len(listing.train) == before + 2 * len(SUFFIXES)
    assert {".jfif", ".webp", ".bmp", ".tif", ".gif"} <= SUFFIXES
    found = [path.relative_to(folder / "train").as_posix() for path in listing.left_out]
    assert found == ["loose.jpg", *sorted(f"iris/{name}" for name in [*odd, "album"])]


def test_images_lie_in_folders_below_their_class(folder: Path) -> None:
    save_image(folder / "train/iris/germanica/0.jpg")
    assert "train/iris/germanica/0.jpg" in list_files(list_images("folder", folder), folder)


def test_a_split_below_the_classes_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("iris", "rose"):
        (folder / "train" / name).rename(tmp_path / name)
        save_image(tmp_path / name / "Train" / "0.jpg")
    (folder / "train").rmdir()
    text = r"class iris holds Train/: the split must lie above the classes, as Train/CLASS/IMAGE \(or is .*iris the"
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    refuse("folder", tmp_path, text)


def test_an_archive_in_a_folder_of_its_name_is_read(folder: Path, tmp_path: Path) -> None:
    wanted = list_labels(list_images("folder", folder))
    for part in ("train", "test"):  # as Kaggle's seg_train/seg_train
        (folder / part).rename(folder / "part")
        (folder / part).mkdir()
        (folder / "part").rename(folder / part / part)
    assert list_labels(list_images("folder", folder)) == wanted
    (tmp_path / "outer").mkdir()
    folder.rename(tmp_path / "outer" / "outer")
    assert list_labels(list_images("folder", tmp_path / "outer")) == wanted
