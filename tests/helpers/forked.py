"""Python in a process of its own that need not import torch: forked from one that has, and has done nothing else.

Of packages only those of others are imported there: a script finds mosaicaug and pmsi as files on the disk.
"""

from __future__ import annotations

import atexit
import importlib.util
import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

IMPORTED = (
    *("torch", "torch._dynamo", "torchvision", "torchvision.models", "torchvision.transforms.v2", "triton.language"),
    *("lightning_fabric", "matplotlib.figure", "matplotlib.font_manager", "PIL.ImageFont", "rich.console", "tyro"),
)


def run_forked(
    *words: str, cwd: Path, environment: Mapping[str, str] | None = None, limit: float = 1200
) -> CompletedProcess[str]:
    """Run ``python *words`` in a folder: a file, ``-m`` and a module, or ``-c`` and code; and arguments.

    The environment is that of this process by default, without ``TRITON_INTERPRET``: there Triton compiles.
    """
    given = {name: value for name, value in (environment or os.environ).items() if name != "TRITON_INTERPRET"}
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / name for name in ("stdout", "stderr")]
        process = start_server().Process(target=run_words, args=(words, cwd, given, said))
        process.start()
        process.join(limit)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutExpired(words, limit)
        out, err = (path.read_text(encoding="utf-8") if path.exists() else "" for path in said)
    return CompletedProcess(words, process.exitcode, out, err)


@cache
def start_server() -> ForkServerContext:
    """Start the process that others are forked from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([name for name in IMPORTED if importlib.util.find_spec(name.split(".")[0])])
    interprets = os.environ.pop("TRITON_INTERPRET", None)
    try:
        ensure_running()
    finally:
        if interprets is not None:
            os.environ["TRITON_INTERPRET"] = interprets
    return context


def run_words(words: tuple[str, ...], cwd: Path, environment: dict[str, str], said: list[Path]) -> None:
    """Run ``python *words`` in the forked process."""
    for number, path in enumerate(said, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    kind, rest = (words[0], words[1:]) if words[0] in ("-m", "-c") else ("", words)
    sys.argv = [kind or rest[0], *rest[1:]]
    sys.path.insert(0, str(cwd if kind else (cwd / rest[0]).parent))
    try:
        if kind == "-c":
            exec(rest[0], {"__name__": "__main__"})
        elif kind == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(rest[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
