"""Tests with the oldest and the newest versions that the project says it supports; `python -m bench.matrix`.

For each Python that is found and each end of the supported versions, a virtual environment is made below
build/matrix, and the whole test suite runs in it. Results go to bench/results/matrix.json.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from packaging.requirements import Requirement

from bench.results import FOLDER, PACKAGES, ROOT
from pmsi.runtime.environment import read_commit

End = Literal["oldest", "newest"]
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")
SHOWN = ("torch", "triton", "torchvision", "kornia", "timm", "dali", "lightning-fabric", "numpy")
RESULTS = FOLDER / "matrix.json"

# What this prints about an environment, run by the Python in it.
_READ_VERSIONS = """
import importlib.metadata, json, platform
print(json.dumps({"python": platform.python_version()} | {
    one.metadata["Name"].lower(): one.version for one in importlib.metadata.distributions()}))
"""


def main(ends: list[End], pythons: list[str]) -> int:
    """Test every environment, print each one's results and write them all; the exit code is 0 if all passed."""
    rows: list[dict[str, Any]] = []
    for python in pythons:
        for end in ends:
            rows.append(run_tests(make_environment(python, end)) | {"end": end})
            print(json.dumps(rows[-1]), flush=True)
    # Not before: the tests hold the pages to the results.
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(not rows or any(row["failed"] for row in rows))


def starts(python: str) -> bool:
    """True if there is such a Python: a name on the path may be a stand-in for one that is not chosen, as of pyenv.

    >>> starts(sys.executable), starts("python0.9")
    (True, False)
    """
    return (
        bool(shutil.which(python))
        and subprocess.run([python, "-c", ""], check=False, stderr=subprocess.DEVNULL).returncode == 0
    )


def list_requirements(extra: str, end: End) -> Iterator[str]:
    """Requirements of an extra for pip, and for those it names: at the lower bounds, or without any bound.

    >>> next(one for one in list_requirements("timm", "oldest") if one.startswith("timm"))
    'timm==1.0.12'
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting: list[str] = [*project["dependencies"], f"{project['name']}[{extra}]"]
    seen: set[str] = set()
    while waiting:
        one = Requirement(waiting.pop(0))
        if one.name == project["name"]:
            new = one.extras - seen
            seen |= new
            waiting += [text for name in sorted(new) for text in project["optional-dependencies"][name]]
        elif one.marker is None or one.marker.evaluate():
            (bound,) = one.specifier
            extras = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
            yield f"{one.name}{extras}=={bound.version}" if end == "oldest" else f"{one.name}{extras}"


def make_environment(python: str, end: End) -> Path:
    """Make a virtual environment of the extra "dev" and the project itself; returns its Python."""
    folder = ROOT / "build" / "matrix" / f"{end}-{python}"
    subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
    inside = folder / "bin" / "python"
    install = [str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, *list_requirements("dev", end)], check=True)
    subprocess.run([*install, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], check=True)
    return inside


def run_tests(python: Path) -> dict[str, Any]:
    """Run the test suite under ``python``; versions, counts of tests, names of those that failed, and minutes."""
    found = subprocess.run([python, "-c", _READ_VERSIONS], check=True, capture_output=True, text=True)
    versions = json.loads(found.stdout)
    report, start = python.parents[1] / "tests.xml", time.perf_counter()
    command = [str(python), "-m", "pytest", "-n", "auto", "-q", f"--junitxml={report}"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    return {
        "versions": {name: versions.get(PACKAGES.get(name, name)) for name in ("python", *SHOWN)},
        **count_tests(report),
        "minutes": round((time.perf_counter() - start) / 60, 1),
        "commit": read_commit("bench/results"),
    }


def count_tests(report: Path) -> dict[str, Any]:
    """Counts of passed and skipped tests, and names of failed ones, from pytest's XML."""
    passed, skipped, failed = 0, 0, []
    for case in ET.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            failed.append(f"{case.get('classname')}.{case.get('name')}")
        elif "skipped" in kinds:
            skipped += 1
        else:
            passed += 1
    return {"passed": passed, "skipped": skipped, "failed": failed}


def render(path: Path = RESULTS) -> str:
    """Table of what passed, in Markdown."""
    if not path.exists():
        return "Not run yet.\n"
    rows = json.loads(path.read_text(encoding="utf-8"))
    names = ("python", *SHOWN)
    lines = [f"| versions | {' | '.join(names)} | passed | skipped | failed |", f"|---|{'---:|' * (len(names) + 3)}"]
    for row in rows:
        versions = " | ".join(re.sub(r"\+.*", "", row["versions"][name] or "-") for name in names)
        lines.append(f"| {row['end']} | {versions} | {row['passed']:,} | {row['skipped']:,} | {len(row['failed'])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    chosen = [one for one in get_args(End) if one in sys.argv[1:]] or [*get_args(End)]
    sys.exit(main(chosen, [name for name in PYTHONS if starts(name)]))
