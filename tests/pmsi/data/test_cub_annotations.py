"""Boxes and parts of birds, moved from pixels of their files to pixels of the crop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pmsi.data.cub_annotations import Annotations, read_annotations
from tests.helpers.dataset_files import CLASSES, edit, write_cub, write_lines


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files of 20 x 14 px, with a box and two parts each; the second part of every second image is hidden."""
    root = write_cub(tmp_path)
    write_lines(root / "bounding_boxes.txt", *(f"{i} 5.0 7.0 10.0 7.0" for i in range(1, 10)))
    lines = [f"{i} {part} 10.0 {7 * part}.0 {int(part == 1 or i % 2)}" for i in range(1, 10) for part in (1, 2)]
    write_lines(root / "parts/part_locs.txt", *lines)
    return root


def list_pictures(root: Path) -> list[Path]:
    return [root / "images" / CLASSES[0] / f"{n}.png" for n in (1, 0)]


def test_points_are_scaled_and_the_margin_of_the_crop_is_taken_off(root: Path) -> None:
    found = read_annotations(root, list_pictures(root), resize=40, crop=30)  # 2 px across and 20/7 down for each px
    assert found.boxes is not None
    assert found.parts is not None
    torch.testing.assert_close(found.boxes, torch.tensor([[15.0, 5.0, 35.0, 25.0]]).expand(2, 4))
    wanted = torch.tensor([[[15.0, 15.0], [torch.nan] * 2], [[15.0, 15.0], [35.0, 15.0]]])  # ids 2, then 1
    torch.testing.assert_close(found.parts, wanted, equal_nan=True)


def test_the_parent_folder_will_do_and_either_file_may_be_missing(root: Path, tmp_path: Path) -> None:
    above = tmp_path.parent / f"{tmp_path.name}-above"
    above.mkdir()
    root = root.rename(above / "CUB_200_2011")
    assert read_annotations(above, list_pictures(root), resize=40, crop=30).boxes is not None
    (root / "bounding_boxes.txt").unlink()
    (root / "parts/part_locs.txt").unlink()
    assert read_annotations(root, list_pictures(root), resize=40, crop=30) == Annotations(None, None)


@pytest.mark.parametrize(
    ("name", "old", "new", "text"),
    [
        ("images.txt", f"1 {CLASSES[0]}/0.png", "", r"cub: images.txt does not list .*/0.png \(1 of 2 files\)"),
        ("bounding_boxes.txt", "1 5.0 7.0 10.0 7.0\n", "", r"cub: bounding_boxes.txt lacks image 1 \(1 of 2 images\)"),
        ("parts/part_locs.txt", " 10.0", "", "requires at least|number of columns"),
    ],
)
def test_tables_that_do_not_fit_are_refused(root: Path, name: str, old: str, new: str, text: str) -> None:
    edit(root / name, old, new)
    with pytest.raises(ValueError, match=text):
        read_annotations(root, list_pictures(root), resize=40, crop=30)


def test_names_with_spaces_and_tables_of_one_line(root: Path) -> None:
    (file,) = (path.rename(path.with_name("a red knot.png")) for path in list_pictures(root)[1:])
    edit(root / "images.txt", "/0.png", "/a red knot.png")
    write_lines(root / "bounding_boxes.txt", "1 5.0 7.0 10.0 7.0")
    found = read_annotations(root, [file], resize=40, crop=30)
    torch.testing.assert_close(found.boxes, torch.tensor([[15.0, 5.0, 35.0, 25.0]]))


def test_of_two_boxes_the_first_counts(root: Path) -> None:
    wanted = read_annotations(root, list_pictures(root), resize=40, crop=30)
    edit(root / "bounding_boxes.txt", "1 5.0 7.0 10.0 7.0\n", "1 5.0 7.0 10.0 7.0\n1 0.0 0.0 3.0 3.0\n")
    found = read_annotations(root, list_pictures(root), resize=40, crop=30)
    torch.testing.assert_close(found.boxes, wanted.boxes)


def test_tables_that_an_editor_wrote_are_read_alike(root: Path) -> None:
    wanted = read_annotations(root, list_pictures(root), resize=40, crop=30)
    for name in ("images.txt", "bounding_boxes.txt", "parts/part_locs.txt"):
        (root / name).write_bytes((root / name).read_text().replace("\n", "\r").encode("utf-8-sig"))
    found = read_annotations(root, list_pictures(root), resize=40, crop=30)
    torch.testing.assert_close(found.boxes, wanted.boxes)
    torch.testing.assert_close(found.parts, wanted.parts, equal_nan=True)
