"""A table as a value: the renderings say the same, and nothing is lost on the way."""

from __future__ import annotations

import io
import json

from rich.console import Console

from pmsi.report.table import Table, render_page, render_part

TABLE = Table("Birds & beasts", ("name", "count"), (("<wren>", "3"), ("tern", "4")), frozenset({"tern"}), ("A note.",))


def test_a_table_survives_json() -> None:
    assert Table.from_dict(json.loads(json.dumps(TABLE.to_dict()))) == TABLE


def test_html_is_escaped_and_marks_rows() -> None:
    page = TABLE.to_html()
    assert "Birds &amp; beasts" in page
    assert '<tr><th scope="row">&lt;wren&gt;</th><td>3</td></tr>' in page
    assert '<tr class="ours"><th scope="row">tern</th><td>4</td></tr>' in page
    assert "A note." in page
    assert "<table>" in page
    words = Table("c", ("a",), (("b",),), words=True).to_html()
    assert '<table class="words">' in words


def test_terminal_and_markdown_say_the_same() -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(TABLE.to_rich())
    text = console.export_text()
    assert all(word in text for word in ("Birds & beasts", "<wren>", "3", "tern", "4", "A note."))
    assert TABLE.to_markdown() == "| name | count |\n|---|---:|\n| <wren> | 3 |\n| tern | 4 |\n"


def test_a_table_without_a_caption_has_none() -> None:
    assert "<caption>" not in Table("", ("a",), (("b",),)).to_html()
    assert "<caption>" in TABLE.to_html()


def test_parts_escape_words_and_keep_markup() -> None:
    inner = render_part("sentence", "a < b")
    assert inner == '<p class="soft">a &lt; b</p>\n'
    assert inner in render_part("folded", "more & more", inner)
    assert "more &amp; more" in render_part("folded", "more & more", inner)


def test_a_page_escapes_its_title() -> None:
    words = dict.fromkeys(("title", "source", "summary", "lead", "footer"), "<b>")
    assert "<b>" not in render_page(**words, sections=[])
