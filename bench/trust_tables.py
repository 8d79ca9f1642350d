"""Tables of docs/trust.md: hostile inputs from their tests, and what fuzzing, soaks and mutation tests counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import matrix
from bench.results import FOLDER
from tests.hostile.case import Case
from tests.hostile.table import TABLE

_OPERATORS = """\
`make mutation` plants them: comparisons, operators, signs, conditions, numbers, strings and truth values are changed;
calls, keyword arguments and returned values are taken away. Left alone are docstrings, annotations, the texts of errors
and warnings, f-strings, `__repr__`, `assert`, `zip(strict=)`, `non_blocking=`, and the Triton kernel, whose mistakes
`tests/helpers/ptx/mistakes.py` plants. A fault is tried on its module's tests and, in most of mosaicaug, on others that
run its statement, each of less than 1.5 s, for a few seconds. Tests of several processes are left out, and those in
Triton's interpreter but for its host code, so the whole suite catches more. Modules without a row were not tried."""


def render_hostile() -> str:
    """All hostile inputs by what is read, each with what happens."""
    count = sum(len(cases) for cases in TABLE.values())
    refused = sum(case.says is not None for cases in TABLE.values() for case in cases)
    lines = [f"{count} inputs: {refused} are refused, {count - refused} are survived."]
    for where, cases in TABLE.items():
        rows = [(case.what, _describe(case)) for case in cases]
        lines += ["", f"### {where}", "", *_draw(("input", "what happens"), rows)]
    return "\n".join(lines) + "\n"


def _describe(case: Case) -> str:
    if case.says is None:
        return case.then
    return f'refused: "{case.says.strip()}"' + (f"; {case.then}" if case.then else "")


def render_fuzz(folder: Path = FOLDER) -> str:
    """Counts of files that were changed at random, by format; empty without results."""
    found = _load("trust-fuzz", folder)
    if not found:
        return ""
    minutes, inputs, failures = (sum(one[name] for one in found) for name in ("minutes", "inputs", "failures"))
    counts: dict[str, Counter[str]] = {}
    for row in (row for one in found for row in one["rows"]):
        counts.setdefault(row["format"], Counter()).update(read=row["read"], refused=row["refused"])
    rows = [(name, f"{sum(one.values()):,}", f"{one['refused']:,}", f"{one['read']:,}") for name, one in counts.items()]
    return _join(
        "## Fuzzing",
        f"{inputs:,} files in {minutes:g} minutes, changed at random from valid ones of {len(counts)} formats:"
        f" {failures or 'no'} crashes, errors of another kind, or files that took too long.",
        _draw(("format", "files", "refused", "read"), rows, right=3),
    )


def render_soak(folder: Path = FOLDER) -> str:
    """Plans that were compared with the oracle in soaks, by backend; empty without results."""
    found = _load("soak", folder)
    if not found:
        return ""
    plans: Counter[tuple[str, str]] = Counter()
    for one in found:
        for row in one["rows"]:
            if row["kind"] in ("backend", "property"):
                plans[row["kind"], row["name"]] += row["plans"]
    minutes, failures = sum(one["minutes"] for one in found), sum(len(one["failures"]) for one in found)
    elements, batch = (max(one["largest"][name] for one in found) for name in ("elements", "batch"))
    devices = ", ".join(dict.fromkeys(one["device"] for one in found))
    about = f"{minutes:g} minutes of random cases on {devices}: {failures or 'no'} failures."
    about += f" The largest images had {elements:,} elements, the largest batch {batch:,} images."
    sections: list[str | Sequence[str]] = ["## Soaks", about]
    for kind, title in (("backend", "plans compared with the oracle"), ("property", "plans")):
        rows = [(name, f"{count:,}") for (one, name), count in plans.most_common() if one == kind]
        sections += [_draw((kind, title), rows, right=1)] if rows else []
    return _join(*sections)


def render_launches(folder: Path = FOLDER) -> str:
    """Launches of the compiled kernel that were executed, by facts of the kernel; empty without results."""
    found = _load("trust-launches", folder)
    if not found:
        return ""
    launches, kernels, failures = (sum(one[name] for one in found) for name in ("launches", "kernels", "failures"))
    covered: Counter[str] = Counter()
    for row in (row for one in found for row in one["rows"]):
        covered[row["fact"]] += row["launches"]
    return _join(
        "## Executed launches",
        f"{launches:,} random launches of {kernels:,} kernels, compiled for sm_80 and sm_90 and executed in numpy: "
        f"{failures or 'no'} wrong bits, misaligned or out-of-bounds accesses, or bytes written twice or never.",
        _draw(("of the kernel", "launches"), [(fact, f"{count:,}") for fact, count in covered.items()], right=1),
    )


def render_mutation(folder: Path = FOLDER) -> str:
    """Mutants by module, and how many the tests catch; empty without results."""
    found = _load("mutation", folder)
    if not found:
        return ""
    rows = [row for one in found for row in one["rows"]]
    packages = dict.fromkeys(row["module"].split("/")[0] for row in rows)
    sums = [_add_rows(name, [row for row in rows if row["module"].startswith(f"{name}/")]) for name in packages]
    total = _add_rows("all", rows)
    left = total["mutants"] - total["killed"] - total["explained"]
    about = (
        f"{total['mutants']:,} small faults were planted, one at a time; the tests catch {total['killed']:,} of them"
    )
    about += f" ({_share(total)}), {total['explained']:,} that they do not catch are explained"
    about += f" in `bench/mutation/explained.txt`, and {left or 'none'} are not."
    drawn = f"They are a random sample of {total['possible']:,} possible ones; intervals are of 95 % (Wilson)."
    cells = [
        (row["module"], f"{row['mutants']:,}", f"{row['killed']:,}", _share(row), f"{row['explained']:,}")
        for row in [*sums, *map(_fill_row, rows)]
    ]
    return _join(
        "## Mutation tests",
        about + (f" {drawn}" if total["possible"] > total["mutants"] else ""),
        _OPERATORS,
        _draw(("module", "mutants", "killed", "share", "explained"), cells, right=4),
    )


def _fill_row(row: dict[str, Any]) -> dict[str, Any]:
    """Counts of a module, with those that older results lack."""
    return {"explained": 0, "possible": row["mutants"], **row}


def _add_rows(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts of several modules, added."""
    counts = ("possible", "mutants", "killed", "explained")
    return {"module": name, **{count: sum(_fill_row(row)[count] for row in rows) for count in counts}}


def _share(row: dict[str, Any]) -> str:
    """Share of mutants that are killed, with Wilson's interval of 95 % where they are a sample."""
    n, killed, z = max(row["mutants"], 1), row["killed"], 1.96
    share, middle = killed / n, (killed + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * (killed * (n - killed) / n + z * z / 4) ** 0.5
    about = f" [{100 * (middle - half):.0f}, {100 * (middle + half):.0f}]" if row["possible"] > row["mutants"] else ""
    return f"{100 * share:.1f} %{about}"


def render_versions(path: Path = matrix.RESULTS) -> str:
    """Versions of Python and packages that the tests were run with; empty without results."""
    return _join("## Versions", "The tests were run with these.", matrix.render(path).rstrip()) if path.exists() else ""


def _load(kind: str, folder: Path) -> list[dict[str, Any]]:
    """Results of a kind, one for each device that has some."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"{kind}*.json"))]


def _draw(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: int = 0) -> list[str]:
    """Lines of a Markdown table, whose last ``right`` columns are numbers."""
    marks = ["---"] * (len(head) - right) + ["---:"] * right
    cells = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (head, marks, *cells)]


def _join(*parts: str | Sequence[str]) -> str:
    return "\n\n".join(part if isinstance(part, str) else "\n".join(part) for part in parts) + "\n"
