"""The report's figures against hand-worked ones, and its page as a browser would take it."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from pmsi.recipe import METHODS, Recipe
from pmsi.report import comparison as report

VOID = {"meta", "img", "br", "link", "hr", "input"}


def make_run(seed: int, concat: float, mix: float) -> dict[str, Any]:
    curve = [
        {
            "epoch": epoch,
            "losses": [3.0, 2.0, 1.0, 4.0 / epoch],
            "lr": [0.1, 0.2],
            "concat": concat,
            "mix": mix / 2 * epoch,
        }
        for epoch in (1, 2)
    ]
    best = {"best_epoch": 2, "best_mix": mix, "seconds": 61.0, "stages": [50.0, 60.0, 70.0]}
    return {"seed": seed, "concat": concat, "mix": mix, "curve": curve, **best}


def make_results(**rows: list[dict[str, Any]]) -> dict[str, Any]:
    protocol = "Birds & <b>beasts</b>."
    return {
        "schema": 1,
        "experiment": "table4",
        "created": "2026-01-02T03:04:05+00:00",
        "data": {"name": "cub", "classes": 100, "train_images": 2999, "test_images": 400, "protocol": protocol},
        "recipe": {"name": "quick", **Recipe(epochs=2, freeze_epochs=0).to_dict()},
        "weights": "none",
        "environment": {"python": "3.11", "device": "cpu: <test>"},
        "rows": [{"method": method, "runs": runs} for method, runs in rows.items()],
        "strips": {"none": ["all 4 phases"], "rmg": ["phase 1: r = 1", "phase 2: r = 0"]},
    }


@pytest.fixture
def results() -> dict[str, Any]:
    return make_results(none=[make_run(0, 80.0, 82.0), make_run(1, 81.0, 84.0)], rmg=[make_run(0, 79.0, 81.5)])


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


def write_page(results: dict[str, Any], path: Path) -> Reader:
    pixels = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5)
    report.write_report(results, {"none": pixels, "rmg": torch.cat([pixels, pixels + 100])}, path)
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


def test_the_papers_figures_are_those_of_table_4() -> None:
    typed = [(85.5, 85.9), (85.1, 85.3), (85.6, 86.0), (85.1, 85.1), (86.3, 86.6), (86.6, 87.0)]
    assert [row.paper for row in report.list_rows(make_results())] == typed
    assert tuple(report.LABELS) == METHODS


def test_mean_and_standard_deviation_over_seeds(results: dict[str, Any]) -> None:
    row = report.list_rows(results)[0]
    assert (row.mean("mix"), row.mean("concat")) == (83.0, 80.5)
    assert row.spread("mix") == pytest.approx(2**0.5)  # of 82 and 84, with n - 1
    assert (row.show("mix"), report.list_rows(results)[5].show("mix")) == ("83.0 ± 1.4", "81.5")


def test_terminal_table_shows_every_row(results: dict[str, Any]) -> None:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(report.rich_table(results))
    text = console.export_text()
    assert all(label in text for label in report.LABELS.values())
    assert "83.0 ± 1.4" in text


def test_standard_error_is_binomial(results: dict[str, Any]) -> None:
    # Mean Mix 82.25 %, 400 images: 100 * sqrt(0.8225 * 0.1775 / 400) = 1.9104.
    assert report.standard_error(report.list_rows(results), 400) == pytest.approx(1.9104, abs=1e-4)
    assert report.standard_error(report.list_rows(make_results()), 400) is None


def test_order_is_said_to_differ_when_it_does(results: dict[str, Any]) -> None:
    text = report.describe_order(report.list_rows(results), 400)
    assert "here it is none (baseline) > RMG" in text
    assert "not reproduced" in text
    assert "1.5 points apart" in text
    assert "less than about 5.4 points" in text  # 2 * sqrt(2) * 1.91
    same = make_results(none=[make_run(0, 80.0, 80.0)], rmg=[make_run(0, 80.0, 90.0)])
    assert "The order is the paper's." in report.describe_order(report.list_rows(same), 400)


def test_only_what_differs_is_listed(results: dict[str, Any]) -> None:
    found = {what: (paper, here) for what, paper, here in report.list_differences(results)}
    assert found["epochs"] == ("150", "2")
    assert found["backbone weights"] == ("ImageNet", "random")
    assert found["seeds"] == ("not said", "0, 1")
    assert found.keys() == {"data", "backbone weights", "reported epoch", "seeds", "epochs", "freeze epochs"}


def test_every_setting_that_differs_is_listed(results: dict[str, Any]) -> None:
    results["recipe"] |= {
        "augmentation": "none",
        "feature_width": 256,
        "lr_new": 0.01,
        "per": "sample",
        "cutmix_p": 0.5,
    }
    found = {what: (paper, here) for what, paper, here in report.list_differences(results)}
    assert found["feature width"] == ("640", "256")
    assert found["lr new"] == ("0.001", "0.01")
    assert found["per"] == ("batch", "sample")
    assert found["cutmix p"] == ("1", "0.5")
    assert "augmentation" not in found


def test_page_needs_no_other_file(results: dict[str, Any], tmp_path: Path) -> None:
    reader = write_page(results, tmp_path / "report.html")
    assert all(load.startswith(("data:image/png;base64,", "#")) for load in reader.loads)
    style = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)|@import", style)


def test_page_shows_what_the_network_saw(results: dict[str, Any], tmp_path: Path) -> None:
    images = write_page(results, tmp_path / "report.html").images
    assert len(images) == 3  # one row for none, two phases for RMG
    uri = images[2]["src"] or ""
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert picture.size == (10, 4)
    assert picture.getpixel((5, 0)) == (160, 180, 200)  # second image, + 100, first pixel
    assert all(image["alt"] for image in images)


def test_page_holds_both_sides_and_their_gains(results: dict[str, Any], tmp_path: Path) -> None:
    text = write_page(results, tmp_path / "report.html").text
    for figure in ("87.0", "+1.1", "83.0 ± 1.4", "81.5", "-1.5", "not run"):
        assert figure in text
    assert "Birds & <b>beasts</b>." in text  # escaped, so it comes back as text
    assert "cpu: <test>" in text


def test_a_failed_write_leaves_the_old_page(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match=r"could not write .*report.html: .*No space left"):
        write_page(results, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_results_of_another_version_are_refused() -> None:
    with pytest.raises(ValueError, match="schema 1, got 2"):
        report.list_rows({**make_results(), "schema": 2})
