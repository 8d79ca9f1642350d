"""The oldest and newest versions that are tested: what pip installs, and the table of results."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from bench.matrix import count_tests, list_requirements, render
from bench.results import ROOT


def test_the_oldest_versions_are_the_lower_bounds_of_every_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [
        lines for name, lines in project["optional-dependencies"].items() if name not in ("executorch", "mutation")
    ]  # not in "dev"
    written = [*project["dependencies"], *(one for extra in extras for one in extra)]
    bounds = {one.name: one.specifier for one in map(Requirement, written) if one.name != project["name"]}
    oldest = {one.name: one.specifier for one in map(Requirement, list_requirements("dev", "oldest"))}
    assert {name: str(one).replace("==", ">=") for name, one in oldest.items()} == {
        name: str(one) for name, one in bounds.items()
    }
    newest = [*map(Requirement, list_requirements("dev", "newest"))]
    assert [one.name for one in newest] == [*oldest]
    assert not any(one.specifier for one in newest)


def test_an_extra_brings_what_it_names_and_torch() -> None:
    assert [*list_requirements("timm", "newest")] == ["torch", "timm"]


def test_results_of_tests_are_counted_and_shown(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="a" name="one"/><testcase classname="a" name="two"><skipped/>'
        '</testcase><testcase classname="a" name="three"><failure/></testcase><testcase classname="b" name="four">'
        "<error/></testcase></testsuite></testsuites>"
    )
    counts = count_tests(report)
    assert counts == {"passed": 1, "skipped": 1, "failed": ["a.three", "b.four"]}
    path = tmp_path / "matrix.json"
    assert render(path) == "Not run yet.\n"
    names = ("python", "torch", "triton", "torchvision", "kornia", "timm", "dali", "lightning-fabric", "numpy")
    path.write_text(
        json.dumps([{"end": "oldest", "versions": {**dict.fromkeys(names, "1.0+cpu"), "dali": None}, **counts}])
    )
    assert render(path).splitlines()[2] == "| oldest | 1.0 | 1.0 | 1.0 | 1.0 | 1.0 | 1.0 | - | 1.0 | 1.0 | 1 | 1 | 2 |"
