"""What an installation brings: packages of each extra, a line where they are missing, the page of a package index."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import mosaicaug
from mosaicaug.backends.cpu import compiled
from pmsi.cli import EXTRA

ROOT = Path(__file__).parents[2]
LINK = re.compile(r'\]\(([^)\s]+)|(?:src|srcset|href)="([^"]+)"')
DRAWS = """
import torch
from mosaicaug import CutMix, Jigsaw, MixUp, RecursiveMosaic, apply
images, labels = torch.arange(8 * 3 * 32 * 32).view(8, 3, 32, 32).float(), torch.arange(8)
total = torch.zeros(())
for augmentation in (Jigsaw(4), Jigsaw(32), RecursiveMosaic(3)):
    total += augmentation(images, generator=torch.Generator().manual_seed(1))[2, 1].std(0).sum()
for augmentation in (CutMix(num_classes=8), MixUp(num_classes=8)):
    mixed, targets = augmentation(images, labels, generator=torch.Generator().manual_seed(1))
    total += mixed[3, 0].mean() + targets.std()
print(total.item().hex())
"""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> email.message.Message:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        assert {"mosaicaug/py.typed", "pmsi/py.typed"} <= set(archive.namelist())
        name = next(name for name in archive.namelist() if name.endswith("METADATA"))
        return email.message_from_bytes(archive.read(name))


def run_without(modules: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    """Code in a fresh process that finds none of these modules."""
    hide = f"import sys\nsys.modules.update(dict.fromkeys({modules!r}))\n"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", hide + code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def requirement_name(requirement: str) -> str:
    """The package of "name>=1.0; marker", as lock files write it."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def find_relative(text: str) -> list[str]:
    """Targets of links and pictures that are neither addresses nor headings of the page."""
    targets = ("".join(found) for found in LINK.findall(text))
    return [target for target in targets if not re.match(r"#|\w+:", target)]


def test_torch_is_all_that_the_augmentations_bring(project: dict[str, Any]) -> None:
    assert [requirement_name(line) for line in project["dependencies"]] == ["torch"]


def test_the_command_knows_every_package_of_its_extra(project: dict[str, Any]) -> None:
    assert sorted(EXTRA.values()) == sorted(map(requirement_name, project["optional-dependencies"]["pmsi"]))


@pytest.mark.parametrize(
    ("modules", "named"),
    [(("tyro",), "tyro"), (tuple(EXTRA), ", ".join(EXTRA.values()))],
)
def test_without_its_extra_the_command_says_what_to_install(modules: tuple[str, ...], named: str) -> None:
    done = run_without(modules, "import runpy; runpy.run_module('pmsi', run_name='__main__')")
    line = f"pmsi: needs the extra packages: pip install 'mosaicaug[pmsi]' (missing: {named})\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_pmsi_is_imported_without_its_extra() -> None:
    done = run_without(tuple(EXTRA), "import pmsi, pmsi.cli")
    assert done.returncode == 0, done.stderr


def test_augmentations_draw_the_same_without_numpy() -> None:
    results = [run_without(modules, DRAWS) for modules in ((), ("numpy",))]
    assert [done.returncode for done in results] == [0, 0], results[1].stderr
    assert results[0].stdout == results[1].stdout


def test_the_version_is_the_packages_own(metadata: email.message.Message) -> None:
    assert metadata["Version"] == mosaicaug.__version__


def test_a_source_without_a_compiler_makes_a_wheel_for_every_platform(tmp_path: Path) -> None:
    skip = shutil.ignore_patterns("__pycache__", "*.native")
    for folder in ("mosaicaug", "pmsi"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    environment = {**os.environ, "CC": str(tmp_path / "none")}
    done = subprocess.run(build, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert "the CPU kernel was not compiled" in done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_wheel_with_the_kernel_is_for_one_platform(metadata: email.message.Message) -> None:
    assert metadata["Name"] == "mosaicaug"
    assert (ROOT / "mosaicaug" / "backends" / "cpu" / "kernel.native").exists()
    assert compiled._load()[1] == ""


def test_links_are_seen() -> None:
    text = '[![a](docs/a.png)](b.md) [c](https://c.org) [d](#d) <img src="e.png"> <a href="http://f.org">'
    assert find_relative(text) == ["docs/a.png", "b.md", "e.png"]


def test_the_page_of_a_package_index_has_no_relative_link(metadata: email.message.Message) -> None:
    page = metadata.get_payload()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert isinstance(page, str)
    assert find_relative(readme)
    assert find_relative(page) == []
    assert (ROOT / find_relative(readme)[0]).exists()
    code = re.compile(r"```.*?```", re.DOTALL)
    assert code.findall(page) == code.findall(readme)


def test_the_lock_file_has_what_development_needs_and_no_address(project: dict[str, Any]) -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    extras = project["optional-dependencies"]
    # ExecuTorch comes with packages of a hundred megabytes, and is made for one version of torch each: its tests skip.
    # The recorder of `make mutation` is installed by it.
    chosen = [lines for name, lines in extras.items() if name not in ("executorch", "mutation")]
    wanted = {requirement_name(line) for lines in chosen for line in lines}
    assert wanted - {"mosaicaug"} <= pinned
    assert "://" not in lock
    assert "--index-url" not in lock


def test_the_version_is_the_same_everywhere() -> None:
    for file, line in (
        ("CITATION.cff", f"version: {mosaicaug.__version__}\n"),
        ("CHANGELOG.md", f"## {mosaicaug.__version__} ("),
    ):
        assert line in (ROOT / file).read_text(encoding="utf-8"), file


def test_hooks_and_workflows_run_the_projects_own_commands() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert [hook["entry"].split()[0] for hook in hooks] == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy"]
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))["jobs"]["test"]
    assert workflow["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    assert "make test PYTHON=python" in [step.get("run") for step in workflow["steps"]]
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["preferred-citation"]
    assert len(paper["authors"]) == 6
