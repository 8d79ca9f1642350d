"""Mutation tests: `python -m bench.mutation` plants faults one at a time, and counts those that the tests catch."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1"}  # before anything imports torch and Triton

from bench.mutation import server
from bench.mutation.choice import ROOT, SLOW_TESTS, choose_tests, is_own, list_test_files, runs
from bench.mutation.mutants import Mutant, draw_mutants, list_mutants

STATE = ROOT / "build" / "mutation"
RESULTS = ROOT / "bench" / "results" / "mutation.json"
EXPLAINED = Path(__file__).with_name("explained.txt")
# Modules, and the tests that are run for them. The kernel and what it calls are left to tests/helpers/ptx/mistakes.py.
SCOPES = {
    "mosaicaug": ("mosaicaug/**/*.py", ("tests/mosaicaug", "tests/properties/test_properties.py")),
    "data": ("pmsi/data/**/*.py", ("tests/pmsi/data",)),
    "training": ("pmsi/training/*.py", ("tests/pmsi/training",)),
}
# Imported before anything is forked: what the packages and the tests import, but for the packages themselves.
SHARED = (
    "torch._dynamo", "torch._inductor.config", "torch.testing", "torch.utils.data", "hypothesis", "numpy", "PIL.Image",
    "triton.language", "triton.runtime.interpreter", "torchvision.transforms.v2", "kornia.augmentation", "timm.data",
    "lightning_fabric", "scipy.io", "matplotlib", "jinja2", "rich.progress", "filelock", "tyro",
)  # fmt: skip
IMPORTED = 4  # test files that are imported for a mutant of what importing runs, its own first
Records = dict[str, dict[str, Any]]


def main(
    modules: Sequence[str], scopes: Sequence[str], most: int, seed: int, budget: float, *, again: bool, own: bool
) -> int:
    """Try the mutants of each scope, write the results, and list what survives without an explanation."""
    for name in SHARED:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    STATE.mkdir(parents=True, exist_ok=True)
    for scope in scopes:
        pattern, folders = SCOPES[scope]
        paths = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))
        chosen = [path for one in modules for path in paths if one in path] if modules else paths
        todo = {path: list_waiting(path, most, seed, again=again) for path in chosen}
        files = [file for folder in folders for file in list_test_files(ROOT / folder)]
        if own:
            files = [file for file in files if any(is_own(file, path) for path in chosen)]
        if any(todo.values()):
            run_in_child(partial(try_swaps, paths, files, todo, budget))
            for path, mutants in todo.items():
                try_imports(path, mutants, budget)
    return report(most, seed)


def list_waiting(path: str, most: int, seed: int, *, again: bool) -> list[Mutant]:
    """The mutants of the sample that were not tried on this source, and with ``again`` those that survived."""
    mutants, records = list_mutants(path, read(path)), load_records(path)
    drawn, explained = set(draw_mutants(mutants, most, seed)), load_explained().get(path, {})
    survived = {name for name, record in records.items() if again and not record["by"] and name not in explained}
    return [one for one in mutants if one.name in survived or (one in drawn and one.name not in records)]


def try_swaps(paths: Sequence[str], files: Sequence[str], todo: dict[str, list[Mutant]], budget: float) -> None:
    """Try the mutants of functions in forks of one process that has collected the tests."""
    recorder = server.make_recorder(ROOT, paths)

    def work(session: server.Server) -> None:
        recorder.stop()
        early = server.read_lines(recorder, ROOT)  # run by collecting: what it made is not made anew in forks
        measured = measure_files(session, paths, files)
        for path, mutants in todo.items():
            source, records = read(path), load_records(path)
            for mutant in mutants:
                tests = choose_tests(measured, mutant, budget)
                imported = not mutant.inside or runs(early, mutant)
                records[mutant.name] = {"by": "", "import": imported, "tests": list(tests)}
                if not mutant.inside:
                    continue
                seconds = 10 + 5 * sum(tests.values())
                attempt = partial(session.try_mutant, mutant, source, ROOT / path, list(tests))
                found = server.fork(attempt, seconds, 10 * seconds)
                records[mutant.name] |= {"by": "crash or time"} if found is None else found
                save_records(path, records)
            save_records(path, records)

    recorder.start()
    if not server.collect(files, work, STATE / f"tmp-{os.getpid()}"):
        raise SystemExit("tests could not be collected, or their process failed")


def measure_files(session: server.Server, paths: Sequence[str], files: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Seconds and lines of all tests: measured, or as they were if neither the packages nor a test's file changed."""
    sources, measured = "".join(read(path) for path in paths), dict[str, dict[str, Any]]()
    for file in files:
        key = hashlib.sha256((sources + read(file)).encode()).hexdigest()[:16]
        stored = STATE / "tests" / f"{file.replace('/', '-')}.json"
        old = json.loads(stored.read_text()) if stored.exists() else {}
        if old.get("key") != key:
            names = [name for name in session.items if name.split("::")[0] == file]
            names = [name for name in names if "triton" not in name.partition("[")[2]]  # interpreted, which is slow
            names = [name for name in names if not any(part in name for part in SLOW_TESTS)]
            random.Random(0).shuffle(names)  # of the cases of one test, any may be left out
            begin = time.monotonic()
            found = server.fork(partial(server.measure_tests, session, ROOT, paths, names), 200, 2000)
            stored.parent.mkdir(exist_ok=True)
            old = {"key": key, "tests": found or {}}
            print(f"{file}: {len(found or {})} of {len(names)} tests, {time.monotonic() - begin:.0f} s", flush=True)
            stored.write_text(json.dumps(old))
        measured |= old["tests"]
    return measured


def try_imports(path: str, mutants: Sequence[Mutant], budget: float) -> None:
    """Try what importing runs, and what survived in forks: modules and tests are imported with the mutant in them."""
    source, records = read(path), load_records(path)
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for mutant in mutants:
        record = records[mutant.name]
        files = list(dict.fromkeys(name.split("::")[0] for name in record["tests"]))[:IMPORTED]
        tests = [name for name in record["tests"] if name.split("::")[0] in files]
        if record["by"] or not record["import"] or not tests:
            continue

        def work(mutant: Mutant = mutant, tests: Sequence[str] = tests, files: Sequence[str] = files) -> dict[str, str]:
            sys.meta_path.insert(0, server.MutatedImport(module, ROOT / path, mutant.change(source)))
            failed = list[str]()
            fine = server.collect(
                files, lambda one: failed.append(one.first_failure(tests)), STATE / f"tmp-{os.getpid()}"
            )
            return {"by": failed[0] if fine else "import"}

        found = server.fork(work, 60 + 5 * budget, 600)
        record |= {"by": "crash or time"} if found is None else found
        save_records(path, records)


def run_in_child(work: Callable[[], None]) -> None:
    """Run ``work`` in a forked process, so that what it imports is gone afterwards."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code) if code == 0 else None
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit("the process with the tests failed")


def report(most: int, seed: int) -> int:
    """Write the results of all modules that have some, and print the survivors that nobody has explained.

    Rows of modules that were not tried here stay as they were.
    """
    old = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if RESULTS.exists() else []
    rows, waiting, explained = {row["module"]: row for row in old}, 0, load_explained()
    for path in sorted(
        path.relative_to(ROOT).as_posix() for pattern, _ in SCOPES.values() for path in ROOT.glob(pattern)
    ):
        if not (records := load_records(path)):
            continue
        mutants = list_mutants(path, read(path))
        tried = [one for one in mutants if one.name in records]
        survived = [one for one in tried if not records[one.name]["by"]]
        open_ones = [one for one in survived if one.name not in explained.get(path, {})]
        for one in open_ones:
            print(f"{path}:{one.line}: {one.name}  ({len(records[one.name]['tests'])} tests)")
        waiting += len(open_ones)
        killed = len(tried) - len(survived)
        row = {"module": path, "possible": len(mutants), "mutants": len(tried), "killed": killed}
        rows[path] = row | {"explained": len(survived) - len(open_ones)}
        print(f"{path}: {killed} of {len(tried)} killed, {len(open_ones)} not explained; {len(mutants)} possible")
    results = importlib.import_module("bench.results")
    results.write_results(
        RESULTS,
        results.describe_environment("cpu") | {"seed": seed, "sample": most},
        [rows[name] for name in sorted(rows)],
    )
    return int(waiting > 0)


def load_explained() -> dict[str, dict[str, str]]:
    """Reasons why mutants survive, by module and mutant, from explained.txt."""
    found, module, name = dict[str, dict[str, str]](), "", ""
    for line in EXPLAINED.read_text(encoding="utf-8").splitlines() if EXPLAINED.exists() else ():
        if line.startswith("# ") or not line.strip():
            continue
        if line.startswith("    "):
            found.setdefault(module, {})[name] = line.strip()
        elif line.endswith(".py:"):
            module = line.removesuffix(":")
        else:
            name = line
    return found


def load_records(path: str) -> Records:
    """Mutants of a module as it is now that were tried, by name, with the test that caught each."""
    stored = STATE / f"{path.replace('/', '-')}.json"
    found = json.loads(stored.read_text()) if stored.exists() else {}
    return found["records"] if found.get("source") == read(path) else {}


def save_records(path: str, records: Records) -> None:
    """Write the mutants of a module that were tried."""
    (STATE / f"{path.replace('/', '-')}.json").write_text(json.dumps({"source": read(path), "records": records}))


def read(path: str) -> str:
    """Text of a file, by its path from the root."""
    return (ROOT / path).read_text(encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help="parts of the modules' paths; all without any")
    parser.add_argument("--scope", choices=SCOPES, action="append")
    parser.add_argument("--sample", type=int, default=0, help="mutants of each module; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=4.0, help="seconds of tests for a mutant that survives")
    parser.add_argument("--again", action="store_true", help="try survivors again that nobody has explained")
    parser.add_argument("--own", action="store_true", help="run tests of the module's own file alone")
    given = parser.parse_args()
    chosen = given.modules, given.scope or list(SCOPES), given.sample, given.seed, given.budget
    sys.exit(main(*chosen, again=given.again, own=given.own))
