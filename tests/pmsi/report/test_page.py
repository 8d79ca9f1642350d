"""The page as a browser would take it: one file, nothing missing, nothing that runs."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from pmsi.evaluation.accuracy import Evaluation
from pmsi.experiments.pictures import Activations
from pmsi.experiments.results import Study, describe_test
from pmsi.recipe import Recipe
from pmsi.report.page import write_page
from tests.helpers.small_study import make_regimes, make_study

VOID = {"meta", "img", "br", "link", "hr", "input"}
SVG_VOID = {"path", "use", "rect"}


class Reader(HTMLParser):
    """Collects images, attributes that load something, and text; fails on tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read_page(study: Study, path: Path) -> Reader:
    write_page(study, path)
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


@pytest.fixture
def study() -> Study:
    return make_study(none=[(80, 82), (81, 84)], rmg=[(79, 81.5)])


def test_page_needs_no_other_file(study: Study, tmp_path: Path) -> None:
    reader = read_page(study, tmp_path / "report.html")
    assert all(load.startswith(("data:image/png;base64,", "#")) for load in reader.loads)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)|@import|<script", page)


def test_page_shows_what_the_network_saw(study: Study, tmp_path: Path) -> None:
    images = read_page(study, tmp_path / "report.html").images
    assert len(images) == 3  # one row for none, two phases for RMG
    uri = images[2]["src"] or ""
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert picture.size == (10, 4)
    assert picture.getpixel((5, 0)) == (160, 180, 200)  # second image, + 100, first pixel
    assert all(image["alt"] for image in images)


def test_page_of_a_comparison_holds_all_sections(study: Study, tmp_path: Path) -> None:
    text = " ".join(read_page(study, tmp_path / "report.html").text.split())
    for figure in ("87.0", "+1.1", "83.0 ± 1.4", "81.5", "-1.5", "not run", "50.0 / 60.0 / 70.0", "84.0 (2)"):
        assert figure in text, figure
    for heading in ("Table IV", "Learning curves", "All classes", "What the network saw", "All runs", "Versions"):
        assert heading in text, heading
    assert "Where the protocol is not the paper's" in text
    assert "The paper's order is not reproduced" in text
    assert "binomial standard error of about 1.9 points" in text
    assert "SnapMix's maps come from an auxiliary linear head" in text
    assert "Birds & <b>beasts</b>." in text  # escaped, so it comes back as text
    assert "cpu: <test>" in text


def test_page_of_figure_4_shows_maps_and_the_pointing_game(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    study = replace(
        make_study("figure4", pmsi=[(80, 82)]),
        activations=Activations(images, (torch.rand(2, 2, 2), torch.rand(2, 1, 1)), ("stage N-1", "stage N")),
        pointing={"images": 512, "points": {"peak of stage N": [81.0, 44.0]}},
    )
    reader = read_page(study, tmp_path / "report.html")
    assert len(reader.images) == 3
    for words in ("Figure 4: Grad-CAM", "stage N-1", "Pointing game on 512 test images", "81.0"):
        assert words in reader.text, words


def test_page_of_one_run_has_its_curve_and_classes(tmp_path: Path) -> None:
    study = make_study("run", rmg=[(79, 81.5)])
    reader = read_page(study, tmp_path / "report.html")
    for words in ("One network, pmsi", "stage 3", "81.50", "Learning curves", "All classes", "hardest", "All runs"):
        assert words in reader.text, words
    assert len(reader.images) == 2


def test_page_of_a_test_has_no_curve(tmp_path: Path) -> None:
    labels = torch.arange(400) % 4
    found = Evaluation(100.0, 75.0, (25.0, 100.0, 100.0), labels, torch.where(labels > 0, labels, 1))
    facts = {name: value for name, value in make_study(none=[]).results.items() if name not in ("tables", "seeds")}
    study = describe_test(facts, Recipe(epochs=2, freeze_epochs=0), 3, found, labels)
    text = read_page(study, tmp_path / "evaluate-cub.html").text
    assert "75.00" in text
    assert "All classes" in text
    assert "wren" in text
    assert "Learning curves" not in text
    assert "All runs" not in text


def test_page_of_several_tables_shows_each_run_once(tmp_path: Path) -> None:
    study = make_study(none=[(80, 82)], rmg=[(79, 81.5)])
    tables = {**study.results["tables"], "table3": {"pmr": study.results["tables"]["table4"]["rmg"]}}
    reader = read_page(replace(study, results={**study.results, "tables": tables}), tmp_path / "report.html")
    assert reader.text.count("50.0 / 60.0 / 70.0") == 2
    assert "The experiments of RMG-PMSI, run again" in reader.text
    assert len(reader.images) == 3


def test_page_of_regimes_has_the_picture_and_the_sentences(tmp_path: Path) -> None:
    study = make_regimes({("none", 5, 25): [60], ("rmg", 5, 25): [50], ("none", 10, 50): [70], ("rmg", 10, 50): [90]})
    text = " ".join(read_page(study, tmp_path / "report.html").text.split())
    for words in (
        "4 classes, 448 px, 5 to 10 training images a class, 25 to 50 epochs",
        "5 training images a class: accuracy, Mix, %",
        "95 % bootstrap intervals",
        "With 10 images a class RMG is better than none at every length tried, from 50 epochs on.",
        "rmg, 10 a class, 50 epochs",
    ):
        assert words in text, words
    assert "Learning curves" not in text


def test_nothing_finished_has_a_page_too(tmp_path: Path) -> None:
    assert "No run is finished yet." in read_page(make_study(none=[], rmg=[]), tmp_path / "report.html").text


def test_a_failed_write_leaves_the_old_page(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match=r"could not write .*report.html: .*No space left"):
        write_page(study, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
