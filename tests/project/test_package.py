"""The packages as a user gets them: examples in docstrings, and the wheel."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import mosaicaug
import pmsi

ROOT = Path(__file__).parents[2]
MODULES = [
    module.name
    for package in (mosaicaug, pmsi)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]
EXTRAS = {"kornia": "kornia", "operation": "kornia", "dali": "nvidia.dali", "graph": "nvidia.dali"}


@pytest.mark.parametrize("name", MODULES + ["mosaicaug"])
def test_examples_in_docstrings_run(name: str) -> None:
    pytest.importorskip(EXTRAS.get(name.rpartition(".")[2], "torch"))
    names = {"torch": torch, **{public: getattr(mosaicaug, public) for public in mosaicaug.__all__}}
    assert doctest.testmod(importlib.import_module(name), extraglobs=names).failed == 0


def test_public_augmentations_have_an_example() -> None:
    for name in ("RecursiveMosaic", "Jigsaw", "CutMix", "MixUp", "SnapMix", "Compose", "OneOf", "apply"):
        assert ">>>" in (getattr(mosaicaug, name).__doc__ or ""), name


def test_wheel_holds_the_packages_alone(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        scripts = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"mosaicaug", "pmsi"}
    assert "pmsi/report/templates/page.html.j2" in names
    assert not [name for name in names if "test" in name.lower() or name.endswith((".pth", ".jpg", ".png"))]
    assert "pmsi = pmsi.cli:main" in scripts
    assert "mosaicaug = mosaicaug.preview:main" in scripts
