"""Imports of a file, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


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
