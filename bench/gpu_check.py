"""Check of a machine with a GPU: tests on CUDA, kernel times, and both benchmarks; `python -m bench.gpu_check`.

It needs what `pmsi` needs, triton and pytest; pytest-benchmark and the other libraries are used where they are
installed. Each part is a process with a time limit of its own, and the files are written after each, so that what one
part found is kept whatever the next one does.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench import results
from bench.gpu import timing
from bench.throughput import tables as throughput_tables
from bench.throughput.rows import compare_with_copies
from bench.training import tables as engine_tables

TESTS = results.ROOT / "tests"
LIMITS = {"tests": 125, "kernel": 105, "benchmark": 110, "engine": 80}  # seconds, and GRACE for each: 8 minutes at most
GRACE = 15  # seconds to write what there is, after a part was told to stop

Part = dict[str, Any]


def main() -> int:
    """Run every part and write the report after each; the exit code is 0 if all passed."""
    if not torch.cuda.is_available():
        print("gpu-check: no CUDA device on this machine")
        return 1
    report = {**results.describe_environment("cuda"), "parts": [], "rows": [], "kernel": [], "engine": []}
    path = results.results_path("gpu-check", report)
    with tempfile.TemporaryDirectory() as folder:
        runs = ((run_tests, "rows"), (run_kernel, "kernel"), (run_benchmark, "rows"), (run_training, "engine"))
        for run, kind in runs:
            part, rows = run(Path(folder))
            report["parts"].append(part)
            report[kind] += rows
            write_report(path, report)
            print(describe_part(part), flush=True)
    print(f"{path} and {path.with_suffix('.md').name} are written")
    return int(any(part["status"] != "passed" for part in report["parts"]))


def run_tests(folder: Path) -> tuple[Part, list[results.Row]]:
    """Run the tests that take a device, on CUDA, and those of the Triton backend but for those that only compile.

    On all cores, if pytest-xdist is there.
    """
    files = list_tests()
    chosen = " or ".join(["cuda", *(path.stem for path in files if path.parent.name == "triton")])
    share = [] if importlib.util.find_spec("xdist") is None else ["-n", "auto", "--maxprocesses=12"]
    return run_pytest("tests", [*map(str, files), *share, "-k", f"({chosen}) and not specialisations"], folder), []


def run_kernel(folder: Path) -> tuple[Part, list[results.Row]]:
    """Time the kernel by replayed graphs, with each choice that the model cannot decide."""
    out = folder / "kernel.json"
    command = [sys.executable, "-m", "bench.gpu.timing", str(out), str(LIMITS["kernel"] - GRACE)]
    code, seconds, tail = run_within(command, LIMITS["kernel"])
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.exists() else []
    status = {None: f"stopped after {LIMITS['kernel']} s", 0: "passed"}.get(code, "failed")
    return make_part("kernel", status, seconds=round(seconds, 1), tail="" if code == 0 else tail), rows


def run_benchmark(folder: Path) -> tuple[Part, list[results.Row]]:
    """Time the star of the throughput benchmark on CUDA."""
    return time_file("benchmark", "throughput/test_throughput.py", folder, "rows.json")


def run_training(folder: Path) -> tuple[Part, list[results.Row]]:
    """Time training beside plain published code; not compiled, which would take minutes."""
    return time_file("engine", "training/test_training.py", folder, "engine-rows.json")


def time_file(name: str, file: str, folder: Path, found: str) -> tuple[Part, list[results.Row]]:
    """Run the star of a file of bench/ as a part; returns it and the rows that it wrote to ``folder / found``."""
    if importlib.util.find_spec("pytest_benchmark") is None:
        return make_part(name, "not run: pytest-benchmark missing"), []
    options = ["--benchmark", "--benchmark-device=cuda", "-m", "star", f"--benchmark-out={folder / 'rows.json'}"]
    part = run_pytest(name, [f"bench/{file}", *options], folder)
    out = folder / found
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.exists() else []
    return part, rows


def list_tests(folder: Path = TESTS) -> list[Path]:
    """Files with tests that take the fixture `device`, and those of CUDA and the Triton backend."""
    return [
        path
        for path in sorted(folder.rglob("test_*.py"))
        if path.name == "test_cuda.py"
        or path.parent.name == "triton"
        or re.search(r"\bdevice: torch\.device\b", path.read_text(encoding="utf-8"))
    ]


def run_pytest(name: str, words: Sequence[str], folder: Path) -> Part:
    """Run pytest as a part: its counts, and the names of the tests that failed."""
    xml = folder / f"{name}.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=line", f"--junitxml={xml}", *words]
    code, seconds, tail = run_within(command, LIMITS[name], threads=1 if "-n" in words else None)
    counts = read_junit(xml)
    fine = "passed" if counts.get("passed") else "nothing ran"
    status = {None: f"stopped after {LIMITS[name]} s", 0: fine}.get(code, "failed")
    return make_part(name, status, seconds=round(seconds, 1), **counts, tail="" if code == 0 else tail)


def make_part(name: str, status: str, **found: Any) -> Part:
    """Part of the report, with zero for every count that is not in ``found``."""
    empty = {"seconds": 0.0, "passed": 0, "failed": 0, "skipped": 0, "failures": [], "tail": ""}
    return {"name": name, "status": status, **empty, **found}


def run_within(
    command: Sequence[str], limit: float, grace: float = GRACE, threads: int | None = None
) -> tuple[int | None, float, str]:
    """Run a command within ``limit`` seconds; afterwards it is interrupted, and killed ``grace`` seconds later.

    Args:
        threads: of each process; those of many get in each other's way.

    Returns:
        Exit code (None if it ran out of time), seconds, and the last 30 lines of its output.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        environment = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
        process = subprocess.Popen(command, cwd=results.ROOT, stdout=output, stderr=subprocess.STDOUT, env=environment)
        code = _wait(process, limit)
        if code is None:
            process.send_signal(signal.SIGINT)
            if _wait(process, grace) is None:
                process.kill()
                process.wait()
        output.seek(0)
        tail = "\n".join(output.read().splitlines()[-30:])
    return code, time.monotonic() - start, tail


def read_junit(path: Path) -> dict[str, Any]:
    """Counts and names of failures from pytest's XML; nothing if it was not written."""
    if not path.exists():
        return {}
    cases = list(ET.parse(path).getroot().iter("testcase"))
    failures = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    return {
        "passed": len(cases) - len(failures) - len(skipped),
        "failed": len(failures),
        "skipped": len(skipped),
        "failures": [f"{case.get('classname')}::{case.get('name')}" for case in failures],
    }


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write the report as JSON and, beside it, its summary as Markdown."""
    head = {name: value for name, value in report.items() if name != "rows"}
    results.write_results(path, head, compare_with_copies(report["rows"]))
    path.with_suffix(".md").write_text(summarise(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")


def summarise(report: dict[str, Any]) -> str:
    """Summary of a report as Markdown: parts, failures, and the tables of both benchmarks."""
    parts = [f"# Check on {report['device']}", "\n".join(f"- {describe_part(part)}" for part in report["parts"])]
    failures = [name for part in report["parts"] for name in part["failures"]]
    if failures:
        parts.append("## Failures\n\n" + "\n".join(f"- `{name}`" for name in failures))
    parts += [f"## End of the output of {p['name']}\n\n```\n{p['tail']}\n```" for p in report["parts"] if p["tail"]]
    if report.get("kernel"):
        found = {"rows": report["kernel"], "winner": timing.name_winner(report["kernel"])}
        parts.append("## Kernel\n\n" + timing.render(found))
    parts.append("## Throughput\n\n" + throughput_tables.render_device("GPU", report))
    parts.append("## Training\n\n" + engine_tables.render_device("GPU", report, report["engine"]))
    return "\n\n".join(parts) + "\n"


def describe_part(part: Part) -> str:
    """One line about a part: status, counts and seconds."""
    counts = f"{part['passed']} passed, {part['failed']} failed, {part['skipped']} skipped"
    return f"{part['name']}: {part['status']} ({counts}, {part['seconds']:.0f} s)"


def _wait(process: subprocess.Popen[bytes], limit: float) -> int | None:
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None


if __name__ == "__main__":
    sys.exit(main())
