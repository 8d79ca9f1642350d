"""Tables that document the source, as Markdown: fields of recipes, levels of packages, one line for each file."""

from __future__ import annotations

import ast
import functools
import types
from collections.abc import Iterator
from dataclasses import fields
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bench.results import ROOT
from pmsi.cli.predict import read_help
from pmsi.recipe import RECIPES, Recipe


def render_recipe_fields() -> str:
    """All fields of `pmsi.recipe.Recipe`: type, value in the recipe ``paper``, other recipes' values, help text."""
    hints, texts = get_type_hints(Recipe), read_help(Recipe)
    lines = ["| field | type | `paper` | other recipes | meaning |", "|---|---|---|---|---|"]
    for field in fields(Recipe):
        values = {name: getattr(recipe, field.name) for name, recipe in RECIPES.items()}
        others = ", ".join(f"`{name}` {value}" for name, value in values.items() if value != values["paper"])
        shown = name_type(hints[field.name])
        lines.append(
            f"| `{field.name}` | {shown} | {values['paper']} | {others} | {' '.join(texts[field.name].split())} |"
        )
    return "\n".join(lines) + "\n"


def name_type(hint: Any) -> str:
    """Write a type in words: the choices of a literal, "or" between the members of a union."""
    if get_origin(hint) is Literal:
        return ", ".join(str(choice) for choice in get_args(hint))
    if isinstance(hint, types.UnionType):
        return " or ".join(name_type(part) for part in get_args(hint))
    return "None" if hint is types.NoneType else str(hint.__name__)


def render_files(package: str) -> str:
    """One line for each file of a package: the first sentence of its docstring."""
    lines = ["| file | what it holds |", "|---|---|"]
    for path in sorted((ROOT / package).rglob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if docstring:
            first = docstring.split("\n\n")[0].replace("\n", " ")
            lines.append(f"| `{path.relative_to(ROOT).as_posix()}` | {first} |")
    return "\n".join(lines) + "\n"


def render_ladder(package: str) -> str:
    """Files and folders of a package by level, each with those of the package that it imports."""
    imports = read_arrows(ROOT / package)
    levels = count_levels(imports)
    count = sum(len(below) for below in imports.values())
    title = f"`{package}`: {len(levels)} files and folders on {max(levels.values())} levels, {count} arrows."
    lines = [
        f"| {levels[thing]} | `{thing}` | {', '.join(sorted(imports[thing])) or '-'} |"
        for thing in sorted(levels, key=lambda name: (-levels[name], name))
    ]
    heads = ["| level | file or folder | imports |", "|---:|---|---|"]
    return "\n".join([title, "", *heads, *lines]) + "\n"


def count_levels(imports: dict[str, set[str]]) -> dict[str, int]:
    """Level of each file and folder: one above the highest level that it imports.

    Raises:
        graphlib.CycleError: they import each other in a circle.
    """
    levels: dict[str, int] = {}
    for thing in TopologicalSorter(imports).static_order():
        levels[thing] = 1 + max((levels[below] for below in imports[thing]), default=0)
    return levels


def read_arrows(folder: Path) -> dict[str, set[str]]:
    """Read which files and folders of a package import which; its own ``__init__`` is none of them."""
    things = {path.stem for path in folder.iterdir() if (path / "__init__.py").exists() or path.suffix == ".py"}
    arrows: dict[str, set[str]] = {thing: set() for thing in things - {"__init__"}}
    for path in folder.rglob("*.py"):
        thing = path.relative_to(folder).parts[0].removesuffix(".py")
        for module, name in read_imports(path, folder.parent):
            parts = [*module.split("."), *([name] if name else [])]
            if thing in arrows and parts[0] == folder.name and parts[1:2] and parts[1] in arrows and parts[1] != thing:
                arrows[thing].add(parts[1])
    return arrows


def read_imports(path: Path, root: Path) -> Iterator[tuple[str, str | None]]:
    """Read every module that a file below ``root`` imports, anywhere in it, and the name taken from it."""
    package = path.relative_to(root).parent.parts
    for node in list_nodes(path):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((module, alias.name) for alias in node.names)


def list_nodes(path: Path) -> list[ast.AST]:
    """List the syntax nodes of a Python file, parsed once for each content."""
    return _list_nodes(path.read_text(encoding="utf-8"))


@functools.cache
def _list_nodes(text: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(text)))
