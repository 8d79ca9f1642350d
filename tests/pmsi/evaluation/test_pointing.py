"""Points, boxes and parts by hand, through a small data set in CUB's layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from pmsi.data.cub_annotations import Annotations, read_annotations
from pmsi.evaluation.pointing import PointingScore, peak_points, score_points

NAN = float("nan")


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    """Two images of 100 x 50 and 40 x 80 px (width x height) in CUB's layout; the second's ids come first."""
    (tmp_path / "images" / "001.Wren").mkdir(parents=True)
    (tmp_path / "parts").mkdir()
    for name, size in (("a b.png", (100, 50)), ("c.png", (40, 80))):
        Image.new("RGB", size).save(tmp_path / "images" / "001.Wren" / name)
    (tmp_path / "images.txt").write_text("7 001.Wren/c.png\n9 001.Wren/a b.png\n")
    (tmp_path / "bounding_boxes.txt").write_text("7 0.0 0.0 40.0 80.0\n9 10.0 5.0 50.0 20.0\n")
    (tmp_path / "parts" / "part_locs.txt").write_text(
        "7 1 20.0 40.0 1\n7 2 0.0 0.0 0\n9 1 50.0 25.0 1\n9 2 25.0 10.0 1\n"
    )
    return tmp_path


def list_files(root: Path) -> list[Path]:
    return [root / "images" / "001.Wren" / name for name in ("a b.png", "c.png")]


def test_annotations_are_in_px_of_the_crop(cub: Path) -> None:
    found = read_annotations(cub, list_files(cub), resize=200, crop=160)
    # 100 x 50 becomes 200 x 200, so x doubles and y takes 4; then 20 px are cut off at the left and at the top.
    boxes = [[4 * 5 - 20, 2 * 10 - 20, 4 * 25 - 20, 2 * 60 - 20], [-20, -20, 180, 180]]
    parts = [[[4 * 25 - 20, 2 * 50 - 20], [4 * 10 - 20, 2 * 25 - 20]], [[2.5 * 40 - 20, 5 * 20 - 20], [NAN, NAN]]]
    assert found.boxes is not None
    assert found.parts is not None
    assert torch.equal(found.boxes, torch.tensor(boxes).float())
    assert torch.equal(found.parts.nan_to_num(-1), torch.tensor(parts).nan_to_num(-1))


def test_the_folder_above_will_do(cub: Path, tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir()
    (above / "CUB_200_2011").symlink_to(cub)
    files = list_files(above / "CUB_200_2011")
    assert read_annotations(above, files, resize=200, crop=160).boxes is not None


def test_what_is_not_marked_is_none(cub: Path) -> None:
    (cub / "parts" / "part_locs.txt").unlink()
    found = read_annotations(cub, list_files(cub), resize=200, crop=160)
    assert found.parts is None
    assert found.boxes is not None
    (cub / "bounding_boxes.txt").unlink()
    assert read_annotations(cub, list_files(cub), resize=200, crop=160) == Annotations(None, None)


def test_tables_that_lack_an_image_are_refused(cub: Path) -> None:
    files = list_files(cub)
    (cub / "bounding_boxes.txt").write_text("7 0 0 40 80\n")
    with pytest.raises(ValueError, match=r"bounding_boxes.txt lacks image 9 \(1 of 2 images\)"):
        read_annotations(cub, files, resize=200, crop=160)
    (cub / "bounding_boxes.txt").write_text("7 0 0 40\n9 0 0 40\n")
    with pytest.raises(ValueError, match=r"bounding_boxes\.txt must hold 5 numbers a line, got 4"):
        read_annotations(cub, files, resize=200, crop=160)
    (cub / "images.txt").write_text("7 001.Wren/c.png\n")
    with pytest.raises(ValueError, match=r"images.txt does not list 001.Wren/a b.png \(1 of 2 files\)"):
        read_annotations(cub, files, resize=200, crop=160)
    (cub / "images.txt").unlink()
    with pytest.raises(FileNotFoundError):
        read_annotations(cub, files, resize=200, crop=160)


def test_the_peak_is_the_centre_of_the_highest_cell() -> None:
    maps = torch.zeros(3, 2, 4)
    maps[0, 0, 0] = maps[1, 1, 2] = maps[2, 0, 3] = 1
    assert peak_points(maps, (100, 200)).tolist() == [[25, 25], [75, 125], [25, 175]]


def test_boxes_are_half_open() -> None:
    box = torch.tensor([[10.0, 20.0, 30.0, 40.0]])
    for point, hit in (((10, 20), 100), ((29.9, 39.9), 100), ((30, 30), 0), ((20, 40), 0), ((9.9, 30), 0)):
        assert score_points(torch.tensor([point]).float(), Annotations(box, None)) == PointingScore(hit, None)


def test_parts_within_15_px_count_if_they_are_visible() -> None:
    parts = torch.tensor([[[50.0, 50.0], [NAN, NAN]]])
    for point, hit in (((50, 65), 100), ((50, 65.1), 0), ((59, 62), 100), ((61, 62), 0), ((0, 0), 0)):
        assert score_points(torch.tensor([point]).float(), Annotations(None, parts)) == PointingScore(None, hit)
    hits = Annotations(None, torch.tensor([[[5.0, 5.0]], [[90.0, 90.0]], [[NAN, NAN]]]))
    points = torch.full((3, 2), 5.0)
    assert score_points(points, hits).parts == 50  # the third image shows no part
    assert score_points(points, hits, tolerance=500).parts == 100
    assert score_points(points[:1], Annotations(None, hits.parts[2:] if hits.parts is not None else None)).parts is None


def test_a_point_for_each_image() -> None:
    with pytest.raises(ValueError, match=r"needs points \[2, 2\], got \[3, 2\]"):
        score_points(torch.zeros(3, 2), Annotations(torch.zeros(2, 4), None))


def test_peaks_and_boxes_meet(cub: Path) -> None:
    """A map that is high on the bird of the file hits its box; one that is high elsewhere does not."""
    found = read_annotations(cub, list_files(cub)[:1], resize=200, crop=160)  # box 0..80 down, 0..100 across
    maps = torch.zeros(2, 1, 4, 4)
    maps[0, 0, 1, 1] = maps[1, 0, 2, 1] = 1
    assert [score_points(peak_points(one, (160, 160)), found).boxes for one in maps] == [100, 0]
