"""Hooks of mkdocs and griffe: links and doctests, which hold in the repository, become Markdown of the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[1]
ROOT_PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
EXAMPLE = r"\[[^\]]*\]\(\.\./(examples/(\w+)\.py)\)"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Show files of the root as pages, and examples as blocks of the gallery that other pages link to."""
    source = page.file.src_uri
    if source in ROOT_PAGES:
        return re.sub(r"\]\(docs/", "](", (ROOT / ROOT_PAGES[source]).read_text(encoding="utf-8"))
    if source == "gallery.md":
        return re.sub(f"^{EXAMPLE}$", lambda link: _show_code(link[1]), markdown, flags=re.MULTILINE)
    return re.sub(EXAMPLE, r"[\2.py](gallery.md#\2)", markdown)


def _show_code(file: str) -> str:
    """Put a script into a block that opens on a click."""
    lines = ["```python", *(ROOT / file).read_text(encoding="utf-8").splitlines(), "```"]
    return "\n".join([f'??? example "{file}"', "", *(f"    {line}".rstrip() for line in lines)])


class Docstrings(griffe.Extension):
    """Put doctests of docstrings into code blocks, and make Markdown of their plain-text tables."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring:
            text = re.sub(r"(?ms)^>>> .*?(?=\n\n|\Z)", r"```pycon\n\g<0>\n```", obj.docstring.value)
            obj.docstring.value = re.sub(r"(?ms)^=+ [= ]+\n.*\n=+ [= ]+$", lambda table: _make_table(table[0]), text)


def _make_table(text: str) -> str:
    """Turn a plain-text table, whose columns are as wide as its lines of ``=``, into Markdown."""
    rule, *lines = text.splitlines()
    starts = [column.start() for column in re.finditer("=+", rule)]
    ends = [*starts[1:], None]
    head, _, *rows, _ = [[line[a:b].strip() for a, b in zip(starts, ends, strict=True)] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
