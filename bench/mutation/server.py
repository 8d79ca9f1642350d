"""Test server: one process that has imported the packages and collected the tests, and forks for every mutant.

Importing torch and collecting the tests take 15 s, a fork 50 ms. In the child the mutated functions get their new code
in place, the tests that ran the changed line are run, fastest first, and the first that fails ends it. What importing
runs cannot be changed so: for it, a process without the packages forks, and imports the mutated source.
"""

from __future__ import annotations

import functools
import gc
import importlib.machinery
import importlib.util
import itertools
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

from bench.mutation.mutants import Mutant

OPTIONS = (
    "-s",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "-p",
    "no:benchmark",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
)
SLOW = 1.5  # seconds of CPU: tests that take longer are left out, and what is left of the cases of one
MEMORY = 4 << 30  # bytes that a mutant may take on top
PACKAGES = ("mosaicaug", "pmsi")


def fork(work: Callable[[], Any], seconds: float, wall: float) -> Any:
    """Result of ``work`` in a forked process as JSON gives it back, or None if a signal or a test ended the process.

    Args:
        work: what the child does; what it prints is lost.
        seconds: CPU time that it may take.
        wall: time that it may take, waiting included.

    Raises:
        RuntimeError: ``work`` raised an exception, which is a fault here and not a test that fails.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _run_child(work, seconds, write)
    os.close(write)
    parts, end = list[bytes](), time.monotonic() + wall
    while select.select([read], [], [], max(end - time.monotonic(), 0))[0]:
        if not (part := os.read(read, 1 << 16)):
            break
        parts.append(part)
    else:
        os.kill(child, signal.SIGKILL)
    os.close(read)
    _, status = os.waitpid(child, 0)
    if status != 0 or not parts:
        return None
    answer = json.loads(b"".join(parts))
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["result"]


def _run_child(work: Callable[[], Any], seconds: float, write: int) -> None:
    """Run ``work`` under limits, send its result, and end the process."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
        answer = {"result": work()}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    text = json.dumps(answer).encode()
    while text:
        text = text[os.write(write, text) :]
    os._exit(0)


class Server:
    """Plugin of pytest that does ``work`` when the tests are collected, in place of running them."""

    def __init__(self, work: Callable[[Server], None]) -> None:
        self.work, self.failed, self.broken = work, False, False
        self.items, self.functions = dict[str, pytest.Item](), list[FunctionType]()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        self.broken = session.testsfailed > 0
        self.functions = [one for one in gc.get_objects() if type(one) is FunctionType]
        gc.freeze()  # pages of objects that no collection touches stay shared
        self.work(self)
        return True

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> pytest.TestReport:
        """Report without the text of a failure, which takes longer than most tests."""
        skipped = call.excinfo is not None and call.excinfo.errisinstance(pytest.skip.Exception)
        outcome: Any = "passed" if call.excinfo is None else "skipped" if skipped else "failed"
        when: Any = call.when
        return pytest.TestReport(item.nodeid, item.location, {}, outcome, longrepr=None, when=when)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed

    def run(self, tests: Sequence[str]) -> Iterator[tuple[str, bool, float]]:
        """Run tests by their names: each one's name, whether it failed, and CPU seconds."""
        items = [self.items[name] for name in tests if name in self.items]
        for item, following in zip(items, [*items[1:], None], strict=False):
            self.failed, begin = False, _read_cpu()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            yield item.nodeid, self.failed, _read_cpu() - begin

    def try_mutant(self, mutant: Mutant, source: str, path: Path, tests: Sequence[str]) -> dict[str, Any]:
        """Put a mutant in place in this process, and name the first test that fails."""
        try:
            swap_code(self.functions, mutant, source, path)
        except ValueError:  # of another closure, another number of functions, or not at hand: it must be imported
            return {"import": True}
        return {"by": self.first_failure(tests)}

    def first_failure(self, tests: Sequence[str]) -> str:
        """Name of the first test that fails, or nothing."""
        return next((name for name, failed, _ in self.run(tests) if failed), "")


def _read_cpu() -> float:
    """CPU seconds of this process and of those that it started and that ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def collect(paths: Sequence[str], work: Callable[[Server], None], scratch: Path) -> bool:
    """Collect the tests of files, and do ``work`` with them; False if that failed for any of them."""
    server = Server(work)
    code = pytest.main([*OPTIONS, f"--basetemp={scratch}", *paths], plugins=[server])
    return bool(server.items) and not server.broken and code != pytest.ExitCode.INTERNAL_ERROR


def make_recorder(root: Path, modules: Sequence[str]) -> Any:
    """Recorder of the lines of modules that are run."""
    import coverage  # of the extra "mutation": the rest is tested without it

    return coverage.Coverage(data_file=None, include=[str(root / module) for module in modules], config_file=False)


def read_lines(recorder: Any, root: Path) -> dict[str, list[int]]:
    """Lines that were run, by module."""
    data = recorder.get_data()
    return {str(Path(file).relative_to(root)): data.lines(file) or [] for file in data.measured_files()}


def measure_tests(server: Server, root: Path, modules: Sequence[str], tests: Sequence[str]) -> dict[str, Any]:
    """For each test that passes in time: its CPU seconds, and the lines that it runs of ``modules``."""
    recorder = make_recorder(root, modules)
    found = dict[str, Any]()

    def interrupt(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGPROF, interrupt)
    signal.signal(signal.SIGALRM, interrupt)
    spent = dict[str, float]()  # by test, of all its cases
    for name in tests:
        if spent.get(test := name.partition("[")[0], 0.0) > SLOW:
            continue
        recorder.erase()
        recorder.start()
        signal.setitimer(signal.ITIMER_PROF, 2 * SLOW)
        signal.setitimer(signal.ITIMER_REAL, 30 * SLOW)
        [(_, failed, seconds)] = server.run([name])
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        recorder.stop()
        spent[test] = spent.get(test, 0.0) + seconds
        if not failed and seconds < SLOW:
            found[name] = {"seconds": seconds, "lines": read_lines(recorder, root)}
    return found


def swap_code(functions: Iterable[FunctionType], mutant: Mutant, source: str, path: Path) -> None:
    """Give functions the code that they have in a mutant, and empty the caches of functions.

    Raises:
        ValueError: none of them has it, as of a module that tests import late; or it needs another closure.
    """
    old, new = (_list_code(_compile(text, path)) for text in (source, mutant.change(source)))
    changed = {_unname(before): after for before, after in zip(old, new, strict=True) if before != after}
    own = [function for function in functions if function.__code__.co_filename == str(path)]
    found = [function for function in own if _unname(function.__code__) in changed]
    if not found:
        raise ValueError(f"no function of {path} is at hand")
    for function in found:
        function.__code__ = changed[_unname(function.__code__)]
    for module in [one for name, one in sys.modules.items() if name.split(".")[0] in PACKAGES]:
        for value in list(vars(module).values()):
            if isinstance(value, functools._lru_cache_wrapper):
                value.cache_clear()


def _compile(source: str, path: Path) -> CodeType:
    return compile(source, str(path), "exec", dont_inherit=True)


def _unname(code: CodeType) -> CodeType:
    """Code without the name of its function: Kornia copies functions and renames them."""
    return code.replace(co_name="", co_qualname="")


def _list_code(code: CodeType) -> list[CodeType]:
    """All code objects within one, itself first; in the same order for a mutant."""
    inner = [_list_code(one) for one in code.co_consts if isinstance(one, CodeType)]
    return [code, *itertools.chain.from_iterable(inner)]


class MutatedImport(importlib.machinery.SourceFileLoader):
    """Finder and loader of one module, whose source is another than its file's."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        super().__init__(name, str(path))
        self.source = source

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> Any:  # noqa: ARG002
        if fullname != self.name:
            return None
        folders = [str(Path(self.path).parent)] if Path(self.path).name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, self.path, loader=self, submodule_search_locations=folders
        )

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        return _compile(self.source, Path(self.path))
