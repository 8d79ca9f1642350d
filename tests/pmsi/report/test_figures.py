"""Pictures of a report: image strips, activation maps and learning curves."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from pmsi.report.figures import (
    encode,
    save_costs,
    save_regimes,
    show_activations,
    show_costs,
    show_curves,
    show_regimes,
    show_strips,
)
from pmsi.report.mobile import list_cost_points
from pmsi.report.regimes import Measured
from tests.helpers.small_study import make_mobile, make_run


def test_pictures_of_each_stage() -> None:
    images = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    page = show_activations(images, [torch.rand(2, 4, 6), torch.ones(2, 1, 1)], ["stage <4>", "stage 5"])
    uris = re.findall(r'src="data:image/png;base64,([^"]*)" width="288" height="96"', page)
    pictures = [Image.open(io.BytesIO(base64.b64decode(uri))) for uri in uris]
    assert [picture.size for picture in pictures] == [(96, 32)] * 3
    assert pictures[0].getpixel((50, 3)) == tuple(images[1, :, 3, 2].tolist())
    assert page.count("stage &lt;4&gt;") == 2  # caption and alternative text
    with pytest.raises(ValueError, match="zip"):
        show_activations(images, [torch.ones(2, 1, 1)], [])


def test_pictures_are_side_by_side_and_small_ones_enlarged() -> None:
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5)
    uri, width, height = encode(images)
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert picture.getpixel((5, 0)) == (60, 80, 100)
    assert (picture.size, width, height) == ((10, 4), 240, 96)


def test_large_pictures_are_shrunk() -> None:
    images = torch.full((3, 3, 320, 480), 7, dtype=torch.uint8)
    uri, width, height = encode(images)
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert (picture.size, width, height) == ((720, 160), 720, 160)
    assert picture.getpixel((719, 159)) == (7, 7, 7)


def test_strips_have_captions_and_words_for_those_who_cannot_see_them() -> None:
    page = show_strips([torch.zeros(1, 3, 8, 8, dtype=torch.uint8)], ["phase 1"], about="RMG, as seen")
    assert "<figcaption>phase 1</figcaption>" in page
    assert 'alt="phase 1: RMG, as seen"' in page


def test_every_run_is_a_line_of_its_rows_colour() -> None:
    rows = {"none": [make_run(0, 80, 82, "a"), make_run(1, 80, 84, "b")], "CutMix": [], "RMG": [make_run(0, 9, 9, "c")]}
    page = show_curves(rows)
    assert page.count("<svg") == 2
    legend = re.findall(r"3px (\w+) (#\w+)\"></span>([^<]*)", page)
    assert legend == [("solid", "#7f7f7f", "none"), ("solid", "#56b4e9", "RMG")]  # a row keeps its colour
    assert page.count("stroke: #7f7f7f; stroke-width: 1.8") == 4  # two seeds in two panels
    assert page.count("stroke: #56b4e9; stroke-width: 1.8") == 2
    assert show_curves({"none": [{**make_run(0, 80, 82, "a"), "curve": []}]}) == ""


def test_rows_beyond_the_colours_are_dashed() -> None:
    page = show_curves({f"row {k}": [make_run(0, 80, 82, str(k))] for k in range(9)})
    assert "3px dashed #7f7f7f" in page


def test_regimes_have_a_panel_for_each_number_of_images_and_a_line_for_each_method(tmp_path: Path) -> None:
    points = [
        point
        for per_class in (5, 10, 20)
        for epochs in (25, 50)
        for point in (
            Measured("none", per_class, epochs, 60.0, 58.0, 63.0),
            Measured("rmg", per_class, epochs, 50.0 + epochs / 2, 48.0 + epochs / 2, 53.0 + epochs / 2),
        )
    ]
    page = show_regimes(points)
    assert re.findall(r"<figcaption>([^<]*)</figcaption>", page) == [
        f"{count} training images a class: accuracy, Mix, %" for count in (5, 10, 20)
    ]
    assert re.findall(r"3px solid (#\w+)\"></span>([^<]*)", page) == [("#7f7f7f", "none"), ("#d55e00", "RMG")]
    for color in ("#7f7f7f", "#d55e00"):
        assert page.count(f"stroke: {color}; stroke-width: 1.8") == 3  # lines, one a panel
        assert page.count(f"stroke: {color}; stroke-width: 1.2") == 6  # intervals, two a line
    assert show_regimes(points) == page
    assert "<svg" in show_regimes([Measured("rmg", 5, 25, 100.0, 100.0000000001, 99.9999999999)])
    pictures = [tmp_path / "one.png", tmp_path / "other.png"]
    save_regimes(points, pictures[0])
    save_regimes([*points[:-1], points[-1]._replace(accuracy=76.0)], pictures[1])
    one, other = (path.read_bytes() for path in pictures)
    assert one != other
    assert Image.open(pictures[0]).size == (1200, 1000)


def test_costs_have_a_mark_for_each_network_and_hollow_ones_are_too_large(tmp_path: Path) -> None:
    points = list_cost_points(make_mobile(), "mobile")
    page = show_costs(points)
    assert page.count("<svg") == 1
    small, large = points[3], points[2]
    assert show_costs([*points[:3], small._replace(megabytes=3.9)]) == page
    assert show_costs([*points[:2], large._replace(megabytes=3.9), small]) != page
    assert show_costs(points) == page
    save_costs(points, tmp_path / "mobile.png")
    assert Image.open(tmp_path / "mobile.png").size == (1400, 720)
