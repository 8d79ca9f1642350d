"""Source that would run foreign code, unpickle foreign data or write outside a folder: none of it is there."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

from bench.source_tables import list_nodes

ROOT = Path(__file__).parents[2]
PACKAGES = ("mosaicaug", "pmsi", "bench", "examples")
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}  # may run what they read
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "input"}


def list_unsafe(root: Path, packages: tuple[str, ...] = PACKAGES) -> list[str]:
    """Imports and calls of a tree of files that may run what a file or a user says."""
    return [
        f"{path.relative_to(root).as_posix()}:{line} {what}"
        for package in packages
        for path in sorted((root / package).rglob("*.py"))
        for line, what in list_unsafe_nodes(list_nodes(path))
    ]


def list_unsafe_nodes(nodes: Iterable[ast.AST]) -> list[tuple[int, str]]:
    found = []
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [(node.lineno, name) for name in names if name.partition(".")[0] in MODULES]
            if isinstance(node, ast.ImportFrom) and node.module == "yaml":  # by its own name its calls are seen below
                found.append((node.lineno, "from yaml"))
        elif isinstance(node, ast.Call) and (what := name_danger(node)):
            found.append((node.lineno, what))
    return found


def name_danger(call: ast.Call) -> str | None:
    """Words for a call that may run what it reads; None for others."""
    name, given = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
    last = name.rpartition(".")[2]
    unsafe = {
        "load": name.startswith("torch.") and given.get("weights_only") != "True",
        "load_state_dict_from_url": given.get("weights_only") != "True",
        "extract": given.get("filter") != "'data'",
        "extractall": True,  # one member after another, so that a bomb is seen
        "unpack_archive": name.startswith("shutil."),
    }
    if name.startswith("yaml.") and last != "safe_load":
        return name
    reads_arrays = name in ("np.load", "numpy.load")
    if name in CALLS or unsafe.get(last, False):
        return name
    if reads_arrays and given.get("allow_pickle") != "False":
        return name
    if given.get("shell", "False") != "False" or given.get("allow_pickle", "False") != "False":
        return f"{name} with shell or allow_pickle"
    return None


def test_nothing_runs_what_it_reads() -> None:
    """But for archives of `torch.export`, in which `check_archive` leaves nothing to be unpickled, and for mutants."""
    found = [f"{place.partition(':')[0]} {what}" for place, what in (one.split(" ", 1) for one in list_unsafe(ROOT))]
    assert found == ["pmsi/deployment/runtimes.py torch.export.load", "bench/mutation/server.py compile"]


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from yaml import load",
        "yaml.load(text)",
        "yaml.unsafe_load(text)",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.hub.load('a/b', 'c')",
        "torch.hub.load_state_dict_from_url(url)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "tar.extractall(folder)",
        "tar.extract(member, folder)",
        "tar.extract(member, folder, filter='tar')",
        "shutil.unpack_archive(file)",
    ],
)
def test_a_line_that_would_is_seen(tmp_path: Path, line: str) -> None:
    (tmp_path / "pmsi").mkdir()
    (tmp_path / "pmsi" / "new.py").write_text(f"{line}\n")
    assert len(list_unsafe(tmp_path, ("pmsi",))) == 1


@pytest.mark.parametrize(
    "line", ["torch.load(path, weights_only=True)", "network.eval()", "re.compile(text)", "yaml.safe_load(text)"]
)
def test_other_lines_are_fine(tmp_path: Path, line: str) -> None:
    (tmp_path / "pmsi").mkdir()
    (tmp_path / "pmsi" / "new.py").write_text(f"{line}\n")
    assert list_unsafe(tmp_path, ("pmsi",)) == []
