"""Tables and checks that all layouts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmsi.data.layouts.base import Listing, check_files, check_listing, check_values, read_table
from tests.helpers.dataset_files import save_image, write_lines


def test_a_table_keeps_its_order_and_values_with_spaces(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.txt", "2 b c ", "", "1 a")
    assert list(read_table("x", tmp_path / "a.txt").items()) == [("2", "b c"), ("1", "a")]


def test_bytes_that_are_not_text_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"1 caf\xe9\n")
    assert read_table("x", tmp_path / "a.txt") == {"1": "caf\ufffd"}


@pytest.mark.parametrize("value", [None, [1], "3"])
def test_the_first_wrong_value_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"x gives image b the value .*; it must be 1 or 2"):
        check_values("x", {"a": 1, "b": value}, (1, 2), "1 or 2")


def test_files_are_listed_once_and_are_there(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    check_files("x", tmp_path, ["a.png"])
    with pytest.raises(ValueError, match=r"x lists a\.png more than once"):
        check_files("x", tmp_path, ["a.png", "a.png"])
    with pytest.raises(FileNotFoundError, match=r"x names b.png, which is not in .* \(1 of 2 are missing\)"):
        check_files("x", tmp_path, ["a.png", "b.png"])


def test_a_listing_needs_training_images_of_each_class_and_a_test_image() -> None:
    entry = (Path("a.png"), 0)
    check_listing(Listing("x", ("a",), (entry,), (entry,), ""))
    for classes, train, test, text in (
        (("a",), (), (), "x: there are no images after a storm;"),
        (("a", "b"), (entry,), (entry,), r"x: class b has no training image after a storm \(1 of 2 classes\)"),
        (("a",), (entry,), (), "x: there are no test images after a storm"),
    ):
        with pytest.raises(ValueError, match=text):
            check_listing(Listing("x", classes, train, test, ""), " after a storm")
