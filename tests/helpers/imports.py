"""Imports read from the source, and the rooms of a package with the arrows between them.

`python -m tests.helpers.imports` prints rooms, levels and arrows of `pmsi` and `mosaicaug`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Arrows(NamedTuple):
    """Imports between the rooms of a package: its folders, and its files beside them.

    Args:
        rooms: names of folders and files.
        pairs: importing and imported room, each pair once.
        levels: rooms on the longest chain of imports.
    """

    rooms: set[str]
    pairs: set[tuple[str, str]]
    levels: int


def read_imports(path: Path, root: Path) -> Iterator[tuple[str, str | None]]:
    """Every module that a file imports, anywhere in it, and the name taken from it."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((module, alias.name) for alias in node.names)


def count_arrows(package: str, root: Path = ROOT) -> Arrows:
    """Count rooms, arrows and levels of a package from its imports.

    Raises:
        graphlib.CycleError: rooms import each other in a circle.
    """
    folder = root / package
    rooms = {path.relative_to(folder).parts[0].removesuffix(".py") for path in folder.rglob("*.py")}
    pairs = set()
    for path in folder.rglob("*.py"):
        here = path.relative_to(folder).parts[0].removesuffix(".py")
        for module, name in read_imports(path, root):
            top, *rest = module.split(".")
            there = rest[0] if rest else name
            if top == package and there in rooms - {here}:
                pairs.add((here, there))

    below = {room: {there for here, there in pairs if here == room} for room in rooms}
    levels: dict[str, int] = {}
    for room in TopologicalSorter(below).static_order():
        levels[room] = 1 + max((levels[there] for there in below[room]), default=0)
    return Arrows(rooms, pairs, max(levels.values()))


if __name__ == "__main__":
    for package in ("mosaicaug", "pmsi"):
        rooms, pairs, levels = count_arrows(package)
        print(f"{package}: {len(rooms)} rooms, {levels} levels, {len(pairs)} arrows")
        for here in sorted(rooms):
            print(f"  {here}: {', '.join(sorted(there for start, there in pairs if start == here)) or '-'}")
