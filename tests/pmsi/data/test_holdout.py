"""Subsets of the training images, in every layout and from the cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pmsi.data.dataset import load_dataset
from pmsi.data.holdout import choose_rows
from pmsi.data.layouts import list_images
from tests.helpers.dataset_files import CLASSES, write_cub

LABELS, NAMES = [0, 1, 0, 0, 1, 0, 1], ("wren", "robin")


def test_rows_are_counted_within_each_class() -> None:
    assert choose_rows(LABELS, NAMES) == (list(range(7)), [], "")
    assert choose_rows(LABELS, NAMES, hold_out=2)[:2] == ([0, 1, 3, 6], [2, 4, 5])
    assert choose_rows(LABELS, NAMES, train_per_class=2)[:2] == ([0, 1, 2, 4], [])
    assert choose_rows(LABELS, NAMES, train_per_class=3)[:2] == ([0, 1, 2, 3, 4, 6], [])  # all robins
    assert choose_rows(LABELS, NAMES, hold_out=2, train_per_class=1)[:2] == ([0, 1], [2, 4, 5])
    assert choose_rows([], NAMES, train_per_class=1)[:2] == ([], [])


def test_the_rule_says_what_was_chosen() -> None:
    assert choose_rows(LABELS, NAMES, hold_out=2, train_per_class=1).rule == (
        "; tested on training images 2, 4, ... of each class, and on none of its test images"
        "; trained on the first 1 training images of each class"
    )


@pytest.mark.parametrize(
    ("hold_out", "train_per_class", "text"),
    [
        (1, None, "hold_out must be 2 or more, so that images are left to train on; got 1"),
        (None, 0, "train_per_class must be 1 or more, got 0"),
        (None, 4, "train_per_class is 4, but class robin has 3 training images; ask for 3 or fewer"),
        (2, 3, "train_per_class is 3, but class wren has 2 training images that are not held out; ask for 2 or fewer"),
    ],
)
def test_a_choice_that_leaves_too_little_is_refused(
    hold_out: int | None, train_per_class: int | None, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        choose_rows(LABELS, NAMES, hold_out, train_per_class)


def test_a_listing_is_tested_on_what_it_holds_out(tmp_path: Path) -> None:
    root = write_cub(tmp_path)
    real, held = list_images("cub", root), list_images("cub", root, hold_out=2)
    assert [(path.name, label) for path, label in held.train] == [("0.png", label) for label in range(3)]
    assert [(path.name, label) for path, label in held.test] == [("2.png", label) for label in range(3)]
    assert not {*held.test} & {*real.test}
    few = list_images("cub", root, train_per_class=1)
    assert (few.train, few.test) == (real.train[::2], real.test)
    assert few.rule == f"{real.rule}; trained on the first 1 training images of each class"
    with pytest.raises(ValueError, match="no test images"):
        list_images("cub", root, hold_out=3)
    with pytest.raises(ValueError, match=rf"class {CLASSES[0]} has 2 training images; ask for 2 or fewer"):
        list_images("cub", root, train_per_class=3)


@pytest.mark.parametrize("stream", [False, True])
def test_a_data_set_is_tested_on_what_it_holds_out(tmp_path: Path, stream: bool) -> None:
    dataset = load_dataset("cub", write_cub(tmp_path), resize=8, hold_out=2, stream=stream)
    assert (len(dataset.train.labels), dataset.test.labels.tolist()) == (3, [0, 1, 2])
    assert dataset.classes == CLASSES
    assert "on none of its test images" in dataset.protocol


def test_every_subset_has_its_own_file_in_the_cache(tmp_path: Path) -> None:
    root, said = write_cub(tmp_path / "birds"), list[str]()
    for hold_out, count in ((None, None), (2, None), (None, 1), (2, 1)) * 2:
        load_dataset(
            "cub", root, resize=8, hold_out=hold_out, train_per_class=count, cache=tmp_path / "kept", say=said.append
        )
    kept = {path.name.rpartition("-")[0].removeprefix("cub-8px-") for path in (tmp_path / "kept").iterdir()}
    assert len(said) == len(kept)
    assert kept == {
        *("training", "test", "training-hold-out-2", "test-hold-out-2"),
        *("training-1-per-class", "training-hold-out-2-1-per-class"),
    }


def test_typefaces_can_be_held_out_and_counted_too() -> None:
    whole = load_dataset("typefaces", None, resize=16)
    part = load_dataset("typefaces", None, resize=16, hold_out=5, train_per_class=3)
    first = (whole.train.labels == 0).nonzero().flatten()
    assert torch.equal(part.test.images[part.test.labels == 0], whole.train.images[first[4::5]])
    assert torch.equal(part.train.images[part.train.labels == 0], whole.train.images[first[:3]])
    assert torch.bincount(part.train.labels).tolist() == [3] * 12
    assert torch.equal(torch.bincount(part.test.labels), torch.bincount(whole.train.labels) // 5)
