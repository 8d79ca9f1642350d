"""Tables and checks that all layouts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmsi.data.layouts.base import (
    Listing,
    check_files,
    check_listing,
    check_values,
    count_left_out,
    is_hidden,
    read_lines,
    read_table,
    step_into,
)
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
    with pytest.raises(ValueError, match=r"x lists a\.png more than once"):
        check_files("x", tmp_path, ["a.png", "./b/../a.png"])
    for elsewhere in ("../a.png", "b/../../a.png", str(tmp_path / "a.png")):
        with pytest.raises(ValueError, match=f"x names {elsewhere}, which is not below .*; paths must be below it"):
            check_files("x", tmp_path, ["a.png", elsewhere])
    with pytest.raises(FileNotFoundError, match=r"x names b.png, which is not in .* \(1 of 2 are missing\)"):
        check_files("x", tmp_path, ["a.png", "b.png"])


def test_a_listing_needs_two_classes_training_images_of_each_and_a_test_image() -> None:
    entry, other = (Path("a.png"), 0), (Path("b.png"), 1)
    check_listing(Listing("x", ("a", "b"), (entry, other), (entry,), ""))
    for classes, train, test, text in (
        (("a",), (), (), "x: there are no images after a storm;"),
        (("a", "b"), (entry,), (entry,), r"x: class b has no training image after a storm \(1 of 2 classes\)"),
        (("a", "b"), (entry, other), (), "x: there are no test images after a storm"),
        (("a",), (entry,), (entry,), "x: there is one class, a; --root must hold two or more to tell apart"),
        (("a", "a"), (entry, other), (entry,), "x: two classes are called a; names must be unique"),
    ):
        with pytest.raises(ValueError, match=text):
            check_listing(Listing("x", classes, train, test, ""), " after a storm")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_of_any_system_are_one(tmp_path: Path, encoding: str, end: str) -> None:
    """Editors write a byte order mark, and other line ends; U+0085 and U+2028 are no line ends of a table."""
    lines = ["1 \u0160koda", "", "2 b\u0085c\u2028d"]
    (tmp_path / "a.txt").write_bytes("".join(f"{line}{end}" for line in lines).encode(encoding))
    assert read_lines(tmp_path / "a.txt") == [*lines, ""]
    assert read_table("x", tmp_path / "a.txt") == {"1": "\u0160koda", "2": "b\u0085c\u2028d"}


def test_names_that_systems_make_are_hidden() -> None:
    hidden = [
        *(".DS_Store", "._a.jpg", ".ipynb_checkpoints", "__MACOSX", "Icon\r", "__pycache__", "lost+found"),
        *("Thumbs.db", "ehthumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information"),
        *("@eaDir", "#recycle", "#snapshot"),
    ]
    assert all(map(is_hidden, hidden))
    assert not any(map(is_hidden, ("a.jpg", "_a", "Sparrow")))


def test_a_folder_inside_itself_is_stepped_into(tmp_path: Path) -> None:
    save_image(tmp_path / "birds" / "birds" / "birds" / "1.png")
    (tmp_path / "birds" / ".DS_Store").touch()
    assert step_into(tmp_path / "birds") == tmp_path / "birds/birds/birds"
    (tmp_path / "birds" / "notes.txt").touch()
    assert step_into(tmp_path / "birds") == tmp_path / "birds"


def test_what_is_left_out_is_counted_by_suffix(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.HEIC", "b.HEIC", "notes")]
    assert count_left_out(Listing("x", (), (), (), "", (*files, tmp_path))) == "2 .HEIC, 1 without suffix, 1 folders"
    assert count_left_out(Listing("x", (), (), (), "")) == ""
